"""Write `vendomini/data/models.jsonl`, the catalogue of models, from files of config.json fields.

    .venv/bin/python tools/make_catalogue.py SOURCE.jsonl [SOURCE.jsonl ...]

Each line of a source has `hf_id`, `source`, fields of a config.json (which may be abbreviated as
`*_counts`, with the type of a nested part as `text_model_type`), and perhaps
`safetensors_total_size_bytes`. What a source leaves out because it was null is written as null,
since transformers takes a missing key for its class's default.
"""

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "vendomini" / "data" / "models.jsonl"

NOT_OF_A_CONFIG = {
    "hf_id", "text_model_type", "source", "source_kind", "note", "aliases", "vision_config",
    "params_total_computed", "params_active_computed", "kv_bytes_per_token_bf16_tp1",
    "params_published", "computed_vs_published_pct", "params_published_provenance",
    "bf16_weight_bytes_computed", "safetensors_total_size_bytes", "safetensors_size_source",
}  # fmt: skip
NULL_IF_ABSENT = ("sliding_window", "q_lora_rank", "num_nextn_predict_layers")
OF_THE_WHOLE = ("architectures", "quantization_config", "torch_dtype")


def entry(row: dict[str, Any]) -> dict[str, Any]:
    """One line of the catalogue."""
    fields = {key: value for key, value in row.items() if key not in NOT_OF_A_CONFIG}
    for name in NULL_IF_ABSENT:
        fields.setdefault(name, None)
    outer, inner = row["model_type"], row.get("text_model_type")
    if inner is not None and inner != outer:
        whole = {name: fields.pop(name) for name in OF_THE_WHOLE if name in fields}
        config = {**whole, "model_type": outer, "text_config": {**fields, "model_type": inner}}
    else:
        config = fields
    if "vision_config" in row:
        config["vision_config"] = row["vision_config"]
    found = {"id": row["hf_id"], "aliases": row.get("aliases", []), "source": row["source"]}
    if row.get("safetensors_total_size_bytes"):
        found["weight_bytes"] = row["safetensors_total_size_bytes"]
        found["weight_bytes_source"] = row.get("safetensors_size_source", row["source"])
    return {**found, "config": config}


def main() -> None:
    entries: dict[str, dict[str, Any]] = {}
    for source in sys.argv[1:]:
        for line in Path(source).read_text(encoding="utf-8").splitlines():
            if line.strip():
                made = entry(json.loads(line))
                entries.setdefault(made["id"], made)
    lines = [json.dumps(entries[id], ensure_ascii=False) for id in sorted(entries, key=str.lower)]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} models in {FILE}", file=sys.stderr)


if __name__ == "__main__":
    main()
