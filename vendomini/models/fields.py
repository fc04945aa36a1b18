"""One fact by any of the names that config.json files give it."""

from collections.abc import Mapping
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
INTERMEDIATE: Names = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff")
VOCABULARY: Names = ("vocab_size", "padded_vocab_size", "n_vocab")
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


@dataclass(frozen=True, slots=True)
class Fields:
    """What a config.json says, else what transformers' class of that type declares."""

    said: Mapping[str, Any]
    silent: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Fields":
        return cls(config, defaults(config.get("model_type")))

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

    def text(self, *names: str) -> str | None:
        found = self.value(*names)
        return found if isinstance(found, str) else None

    def list(self, *names: str) -> list[Any] | None:
        found = self.value(*names)
        return list(found) if isinstance(found, list | tuple) else None

    def mapping(self, *names: str) -> Mapping[str, Any]:
        found = self.value(*names)
        return found if isinstance(found, dict) else {}
