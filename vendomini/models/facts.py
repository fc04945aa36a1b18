"""What a model's folder says of it: sizes, context, chat template."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vendomini.chat import MODEL
from vendomini.errors import ConfigError
from vendomini.models.folder import ModelIncomplete, read_json, weight_bytes

LANGUAGE_PARTS = ("text_config", "llm_config", "language_config")
"""Where models of several senses keep what concerns their language model."""

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""Names of the context's length, as vLLM knows them: the smallest counts."""

SCALED_ALREADY = frozenset(
    {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
)
"""Kinds of rope scaling whose `max_position_embeddings` is the context as it is scaled."""

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "*.tiktoken",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model's own facts. None: its config.json does not say.

    `max_model_len` is the longest context in tokens that it allows, `weight_bytes` the size of
    its weights as they are on the disk. `chat_template` is the template's text; None: it has none.
    """

    folder: Path
    architecture: str | None
    model_type: str | None
    num_attention_heads: int | None
    num_key_value_heads: int | None
    hidden_size: int | None
    layers: int | None
    max_model_len: int | None
    dtype: str | None
    weight_bytes: int
    chat_template: str | None
    has_tokenizer: bool


def read_model(folder: Path) -> ModelFacts:
    """The facts of the model in a folder, from its small files and the headers of its weights.

    What the folder's files say beyond that is not looked at. Raises `ModelIncomplete` if the
    config.json or weights are missing, `ConfigError` if the folder is, or a file is damaged.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"`{MODEL}.name` is `{folder}`, and there is no such folder",
            hint="give a hub id such as `org/name`, or a folder that holds a config.json",
        )
    if not (folder / "config.json").is_file():
        raise ModelIncomplete(
            f"`{folder}` has no config.json",
            hint="a local model is a folder with config.json, tokenizer and weights, complete",
        )
    config = read_json(folder / "config.json")
    language = _language(config)
    heads = _number(language, HEADS)
    return ModelFacts(
        folder=folder,
        architecture=_first_text(config.get("architectures")),
        model_type=_first_text(config.get("model_type")),
        num_attention_heads=heads,
        num_key_value_heads=_number(language, KEY_VALUE_HEADS) or heads,
        hidden_size=_number(language, HIDDEN),
        layers=_number(language, LAYERS),
        max_model_len=max_model_len(language),
        dtype=_dtype(language) or _dtype(config),
        weight_bytes=weight_bytes(folder),
        chat_template=_chat_template(folder),
        has_tokenizer=any(next(folder.glob(name), None) for name in TOKENIZERS),
    )


def max_model_len(config: Mapping[str, Any]) -> int | None:
    """The longest context in tokens that the language model's part of a config.json allows.

    As vLLM 0.32 derives it (`vllm.config.model._get_and_verify_max_len`), for the same answer.
    Only scalings that leave `max_position_embeddings` as trained (linear, dynamic) multiply it.
    """
    model_type = str(config.get("model_type", ""))
    lengths = [length for name in CONTEXT if (length := _number(config, (name,)))]
    # Cohere's models say here what they are really good for.
    longest = _number(config, ("model_max_length",)) or min(lengths, default=None)
    if longest is None:
        return None
    factor = 1.0
    if "gemma3" not in model_type:  # its length is written as it is scaled
        for rope in _ropes(config):
            kind = rope.get("rope_type", rope.get("type"))
            given = rope.get("factor")
            if kind not in SCALED_ALREADY and isinstance(given, int | float):
                factor = float(given)
    return int(longest * factor)


# -- private -------------------------------------------------------------------------------


def _language(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that concerns the language model: mostly all of it."""
    for name in LANGUAGE_PARTS:
        part = config.get(name)
        if isinstance(part, dict) and (_number(part, HEADS) or _number(part, HIDDEN)):
            return part
    return config


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _first_text(value: object) -> str | None:
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, str) else None


def _dtype(config: Mapping[str, Any]) -> str | None:
    said = _first_text(config.get("dtype")) or _first_text(config.get("torch_dtype"))
    return said.removeprefix("torch.") if said else None


def _ropes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings of rope, by its older name or the newer; a mapping for each kind of layer."""
    for name in ("rope_scaling", "rope_parameters"):
        found = config.get(name)
        if isinstance(found, dict):
            inner = [part for part in found.values() if isinstance(part, dict)]
            yield from inner or [found]


def _chat_template(folder: Path) -> str | None:
    """From the template's own file, else from the tokenizer's settings; None if there is none."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            written = read_json(folder / name).get("chat_template")
            if isinstance(written, list):  # several, by name
                named = {str(each.get("name")): each for each in written if isinstance(each, dict)}
                written = named.get("default", {}).get("template")
            if isinstance(written, str) and written:
                return written
    return None
