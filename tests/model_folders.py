"""Folders that look like models, made by hand: config.json, tokenizer, weights that hold nothing.

What only reads a model's files cannot tell them from real ones, and they cost a millisecond.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATE = "{%- for message in messages -%}{{ message['content'] }}{%- endfor -%}"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
TENSOR_BYTES = 64


def model_folder(
    folder: Path, *, template: str | None = TEMPLATE, shards: int = 1, **config: Any
) -> Path:
    """A complete model whose config.json has `config` beside the usual; None leaves a key out."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "tokenizer.json").write_text("{}")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if shards == 1:
        safetensors(folder / "model.safetensors", {"weight": TENSOR_BYTES})
        return folder
    weight_map = {}
    for number in range(1, shards + 1):
        name = f"model-{number:05d}-of-{shards:05d}.safetensors"
        safetensors(folder / name, {f"weight.{number}": TENSOR_BYTES})
        weight_map[f"weight.{number}"] = name
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def safetensors(path: Path, tensors: Mapping[str, int]) -> Path:
    """A file of that format whose tensors have so many bytes, all zero."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + bytes(end))
    return path


def hub_snapshot(cache: Path, name: str, *, commit: str = "c0ffee", branch: str = "main") -> Path:
    """Where the hub's own program would keep a model; the branch points to it. Nothing is there."""
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True, exist_ok=True)
    (model / "refs" / branch).write_text(commit)
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot
