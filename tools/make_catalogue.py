"""Write `vendomini/data/models.jsonl`, the catalogue of models, from files of config.json fields.

    .venv/bin/python tools/make_catalogue.py SOURCE.jsonl tools/catalogue_additions.jsonl

Each line of a source has `hf_id`, `source`, fields of a config.json (which may be abbreviated as
`*_counts`, with the type of a nested part as `text_model_type`), and perhaps `aliases`,
`params_published` and `safetensors_total_size_bytes`. A line may build on another by `like`, or on
transformers' defaults for a type by `defaults_of`. What a source leaves out because it was null is
written as null, since transformers takes a missing key for its class's default.

Refuses an entry whose parameters, counted, are not what was published of it (1 %, or 1.5 %
where that is rounded). Needs the `hf` extra.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from make_architectures import FIELDS
from transformers import PretrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from vendomini.models.config_json import spec_of_config
from vendomini.models.naming import stored_as

FILE = Path(__file__).parent.parent / "vendomini" / "data" / "models.jsonl"
MOST_OFF = 0.01
ROUNDED = 0.015

ABOUT = {
    "hf_id", "like", "defaults_of", "source", "source_kind", "note", "aliases",
    "params_total_computed", "params_active_computed", "kv_bytes_per_token_bf16_tp1",
    "params_published", "computed_vs_published_pct", "params_published_provenance",
    "bf16_weight_bytes_computed", "safetensors_total_size_bytes", "safetensors_size_source",
}  # fmt: skip
NULL_IF_ABSENT = ("sliding_window", "q_lora_rank")
OF_THE_WHOLE = ("architectures", "quantization_config", "torch_dtype", "vision_config")
GEMMA_4_EXPERTS = {"enable_moe_block": True, "attention_k_eq_v": True, "top_k_experts": 8}
# What sources of a config.json's fields leave out, and the model needs.
ALSO: dict[str, dict[str, Any]] = {
    "mistralai/Mistral-7B-v0.1": {"max_position_embeddings": 32768},
    "google/gemma-4-26B-A4B": GEMMA_4_EXPERTS,
    "nvidia/Gemma-4-26B-A4B-NVFP4": GEMMA_4_EXPERTS,
    "nvidia/Gemma-4-31B-IT-NVFP4": {"attention_k_eq_v": True},
    "zai-org/GLM-4.5": {"use_qk_norm": True},
    "tiiuae/falcon-40b": {"new_decoder_architecture": True},
    "tiiuae/falcon-180B": {"new_decoder_architecture": True},
}  # fmt: skip
NO_SMALL_EMBEDDINGS = {"hidden_size_per_layer_input": None}  # Gemma 4's larger models
# NVIDIA writes how a model is stored in a file beside the config.json: the name says it too.
BESIDE: dict[str | None, dict[str, Any]] = {
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"},
    "fp8": {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
}
MOVED = {"CohereLabs": "CohereForAI", "CohereForAI": "CohereLabs", "zai-org": "THUDM"}


def config_of(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The fields of a row, those it builds on below its own."""
    fields = {key: value for key, value in row.items() if key not in ABOUT}
    if base := row.get("like"):
        below = rows[base]
        if base == row["hf_id"]:
            below = {key: value for key, value in below.items() if key != "like"}
        inherited = config_of(below, rows)
        if "model_type" in row and "text_model_type" not in row:
            inherited = {k: v for k, v in inherited.items() if k != "text_model_type"}
        fields = {**inherited, **fields}
    elif model_type := row.get("defaults_of"):
        fields = {**_defaults(model_type), **fields}
        if "model_type" in row:
            fields["text_model_type"] = _defaults(model_type)["model_type"]
    return {**fields, **ALSO.get(row["hf_id"], {})}


def entry(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One line of the catalogue."""
    fields = config_of(row, rows)
    for name in NULL_IF_ABSENT:
        fields.setdefault(name, None)
    outer, inner = fields["model_type"], fields.pop("text_model_type", None)
    if outer.startswith("gemma4"):
        fields = {**NO_SMALL_EMBEDDINGS, **fields}
    if not fields.get("architectures"):
        fields["architectures"] = _architectures(outer)
    if not fields.get("quantization_config") and (method := BESIDE.get(stored_as(row["hf_id"]))):
        fields["quantization_config"] = method
    if inner is not None and inner != outer:
        whole = {name: fields.pop(name) for name in OF_THE_WHOLE if name in fields}
        config = {**whole, "model_type": outer, "text_config": {**fields, "model_type": inner}}
    else:
        config = fields
    source = _plainly(row["source"], row)
    found = {"id": row["hf_id"], "aliases": _aliases(row), "source": source}
    if row.get("safetensors_total_size_bytes"):
        found["weight_bytes"] = row["safetensors_total_size_bytes"]
        found["weight_bytes_source"] = _plainly(row.get("safetensors_size_source", source), row)
    return {**found, "config": config}


def _plainly(source: str, row: dict[str, Any]) -> str:
    """A source without how somebody searched for it."""
    if source.startswith("stored public repo"):
        return f"a {row['source_kind']} in a public repository"
    source = re.sub(r" \((search|find_string)[^)]*\)", "", source)
    return source.replace("stored public files", "public repositories")


def _defaults(model_type: str) -> dict[str, Any]:
    whole = CONFIG_MAPPING[model_type]()
    text = whole.get_text_config(decoder=True)
    found = {**_own(text), "model_type": text.model_type}
    if "max_position_embeddings" not in found and "model_max_length" in found:
        found["max_position_embeddings"] = found["model_max_length"]
    if (vision := getattr(whole, "vision_config", None)) is not None:
        found["vision_config"] = {**_own(vision), "model_type": vision.model_type}
    return found


def _own(config: Any) -> dict[str, Any]:
    """What a configuration has beyond any other's."""
    usual = set(PretrainedConfig().to_dict()) - {"tie_word_embeddings"}
    found = config.to_dict()
    return {
        name: value
        for name, value in found.items()
        if name not in usual and value is not None and "rope" not in name and "token" not in name
    } | {name: found[name] for name in found if name in FIELDS and found[name] is not None}


def _architectures(model_type: str) -> list[str]:
    for names in (
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    ):
        if model_type in names:
            return [str(names[model_type])]
    raise SystemExit(f"which architecture is `{model_type}`?")


def _aliases(row: dict[str, Any]) -> list[str]:
    aliases = list(row.get("aliases", []))
    org, _, name = row["hf_id"].partition("/")
    if org in MOVED:
        aliases.append(f"{MOVED[org]}/{name}")
    return sorted(set(aliases) - {row["hf_id"]}, key=str.lower)


def main() -> None:
    rows: dict[str, dict[str, Any]] = {}
    for source in sys.argv[1:]:
        for line in Path(source).read_text(encoding="utf-8").splitlines():
            if line.strip():
                row = json.loads(line)
                rows[row["hf_id"]] = {**rows.get(row["hf_id"], {}), **row}
    made = {id: entry(row, rows) for id, row in rows.items()}
    wrong = 0
    for id, found in made.items():
        published = rows[id].get("params_published")
        if not published:
            continue
        spec = spec_of_config(found["config"], id=id, weight_bytes=None, source="")
        off = spec.params / published - 1
        if abs(off) > (ROUNDED if published % 1e8 == 0 else MOST_OFF):
            wrong += 1
            print(f"{id}: {spec.params:,} counted, {published:,} published ({off:+.2%})")
    lines = [json.dumps(made[id], ensure_ascii=False) for id in sorted(made, key=str.lower)]
    if wrong and "--anyway" not in sys.argv:
        raise SystemExit(f"{wrong} entries disagree with what was published")
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} models in {FILE}", file=sys.stderr)


if __name__ == "__main__":
    main()
