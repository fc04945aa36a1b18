"""One fact by any of the names that config.json files give it, or as transformers declares it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vendomini.models.support import defaults

Names = tuple[str, ...]

HEADS: Names = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEY_VALUE_HEADS: Names = (
    "num_key_value_heads",
    "num_kv_heads",
    "n_head_kv",
    "num_query_groups",
    "num_attention_groups",
)
HIDDEN: Names = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
LAYERS: Names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
VOCABULARY: Names = ("vocab_size", "padded_vocab_size", "n_vocab")
INTERMEDIATE: Names = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff")
EXPERTS: Names = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
)
EXPERTS_PER_TOKEN: Names = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "moe_top_k",
    "top_k_experts",
    "experts_per_token",
    "num_selected_experts",
    "moe_k",
)
EXPERT_SIZE: Names = ("moe_intermediate_size", "moe_ffn_hidden_size", "expert_ffn_hidden_size")
SHARED_EXPERTS: Names = (
    "n_shared_experts",
    "num_shared_experts",
    "num_shared_expert",
    "moe_num_shared_experts",
)
SHARED_EXPERT_SIZE: Names = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "share_expert_dim",
    "shared_intermediate_size",
)
CONTEXT: Names = (
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

LANGUAGE_PARTS: Names = ("text_config", "llm_config", "language_config")
"""Where models of several senses keep what concerns their language model."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a config.json says, else what transformers' class of that type declares."""

    said: Mapping[str, Any]
    silent: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Fields":
        return cls(config, defaults(config.get("model_type")))

    @property
    def model_type(self) -> str:
        return _text(self.said.get("model_type")) or ""

    @property
    def hidden(self) -> int:
        """Channels between the layers; 0: neither said nor declared, as the next two."""
        return self.positive(*HIDDEN) or 0

    @property
    def depth(self) -> int:
        return self.positive(*LAYERS) or 0

    @property
    def vocabulary(self) -> int:
        return self.positive(*VOCABULARY) or 0

    @property
    def heads(self) -> int:
        """Of the queries; 1: neither said nor declared."""
        return self.positive(*HEADS) or 1

    def value(self, *names: str) -> Any:
        """The first of them that is said; null counts as said. None: neither is any declared."""
        for where in (self.said, self.silent):
            for name in names:
                if name in where and (where[name] is not None or len(names) == 1):
                    return where[name]
            if where is self.said and any(name in where for name in names):
                return None
        return None

    def number(self, *names: str) -> int | None:
        found = self.value(*names)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def positive(self, *names: str) -> int | None:
        found = self.number(*names)
        return found if found is not None and found > 0 else None

    def flag(self, *names: str, otherwise: bool = False) -> bool:
        found = self.value(*names)
        return otherwise if found is None else bool(found)

    def list(self, *names: str) -> list[Any] | None:
        found = self.value(*names)
        return list(found) if isinstance(found, list | tuple) else None

    def mapping(self, *names: str) -> Mapping[str, Any]:
        found = self.value(*names)
        return found if isinstance(found, dict) else {}


def names_in(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Its architecture and its model type."""
    return _text(config.get("architectures")), _text(config.get("model_type"))


def max_model_len(config: Mapping[str, Any]) -> int | None:
    """The longest context in tokens that the language model's part of a config.json allows.

    As vLLM 0.32 derives it (`vllm.config.model._get_and_verify_max_len`), for the same answer.
    Only scalings that leave `max_position_embeddings` as trained (linear, dynamic) multiply it.
    """
    lengths = [length for name in CONTEXT if (length := first_positive(config, (name,)))]
    # Cohere's models say here what they are really good for.
    longest = first_positive(config, ("model_max_length",)) or min(lengths, default=None)
    if longest is None:
        return None
    factor = 1.0
    if "gemma3" not in str(config.get("model_type", "")):  # its length is written as it is scaled
        for rope in _ropes(config):
            kind = rope.get("rope_type", rope.get("type"))
            given = rope.get("factor")
            if kind not in SCALED_ALREADY and isinstance(given, int | float):
                factor = float(given)
    return int(longest * factor)


def dtype_of(*parts: Mapping[str, Any]) -> str | None:
    """The type of the weights, from the first part of a config.json that says it."""
    for part in parts:
        if said := _text(part.get("dtype")) or _text(part.get("torch_dtype")):
            return said.removeprefix("torch.")
    return None


def first_positive(config: Mapping[str, Any], names: Names) -> int | None:
    """What the config.json itself says, by the first name that it gives a number to."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None


# -- private -------------------------------------------------------------------------------


def _ropes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings of rope, by its older name or the newer; a mapping for each kind of layer."""
    for name in ("rope_scaling", "rope_parameters"):
        found = config.get(name)
        if isinstance(found, dict):
            inner = [part for part in found.values() if isinstance(part, dict)]
            yield from inner or [found]


def _text(value: object) -> str | None:
    """A text, or the first of a list of them; None: it is neither."""
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, str) else None
