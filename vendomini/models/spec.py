"""The sizes of a model that decide on what it runs and how fast, and those of each of its layers:
values only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

CacheKind: TypeAlias = Literal["full", "sliding", "latent"]
"""How a layer's KV cache grows: with the conversation, up to a window, or compressed (MLA)."""

Mixing: TypeAlias = Literal["attention", "latent", "compressed", "delta", "kda", "mamba", "none"]
"""`delta` is the gated delta net of Qwen3-Next, `kda` that of Kimi-Linear, `latent` is MLA,
`compressed` is DeepSeek-V4's: one key-value head, kept whole for a window and beyond it for each
`compression` tokens once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayers:
    """Attention layers whose KV caches are alike.

    A token takes ``layers * kv_heads * width`` elements: `width` is keys and values together,
    ``2 * head_dim``, or ``kv_lora_rank + qk_rope_head_dim`` for latent ones (`kv_heads` 1), which
    tensor parallelism does not divide. `window` is in tokens; None: it grows without end.
    """

    kind: CacheKind
    layers: int
    kv_heads: int
    width: int
    window: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a checkpoint's weights are stored, where they are not plain 16-bit.

    `weight_bytes_each` is bytes a quantised parameter, scales included. `group_size` counts
    input channels that share a scale, `block` is a 2-D scale's (out, in). `expert_only`: only the
    routed experts are quantised.
    """

    method: str  # vLLM's name: fp8, awq, gptq, mxfp4, modelopt_fp4, bitsandbytes, int8, ...
    weight_bytes_each: float
    group_size: int | None = None
    block: tuple[int, int] | None = None
    expert_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model's sizes. Counts of parameters include everything that is loaded to serve it.

    `weight_bytes` is the checkpoint as an engine loads it (16-bit where it is written in 32).
    `embedding_params` are the input embedding and the output head, one matrix if tied;
    `expert_params` those of all routed experts, `vision_params` those of other senses.
    `active_params` are read for each token. `state_bytes` is a sequence's constant state (Mamba,
    linear attention). `weight_margin` is by which share `weight_bytes` may be wrong: 0 where it
    was read, more where it was computed, much where it was guessed. `sources` says by fact where
    it comes from.
    """

    id: str
    architecture: str | None = None  # None, as the next: not said
    model_type: str | None = None
    params: int
    active_params: int
    embedding_params: int
    expert_params: int = 0
    vision_params: int = 0
    layers: int
    hidden_size: int
    intermediate_size: int | None = None  # None: every layer is of experts
    vocab_size: int
    num_attention_heads: int
    num_key_value_heads: int
    num_experts: int = 0  # routed ones of a layer; 0: dense
    experts_per_token: int = 0
    moe_intermediate_size: int | None = None
    mamba_heads: int | None = None
    mamba_groups: int | None = None
    cache: tuple[CacheLayers, ...]
    state_bytes: int = 0
    max_model_len: int | None  # None: the config.json does not say
    dtype: str  # float16, bfloat16 or float32, as it was trained
    quantization: Quantization | None = None  # None: plain
    kv_cache_fp8: bool = False  # the checkpoint asks for it
    weight_bytes: int
    weight_margin: float = 0.0
    tie_word_embeddings: bool = False
    is_guess: bool = False  # known by nothing but the size in its name
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def knows_context(self) -> bool:
        """Whether `max_model_len` is this very model's: versions of a model that were tuned
        otherwise are of the same size, but not of the same context (Qwen2.5: 131,072 and
        32,768)."""
        return not self.is_guess and "id" not in self.sources

    @property
    def is_moe(self) -> bool:
        return self.num_experts > 0

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int:
        """Bytes that each further token of a long conversation takes, all layers, on one GPU:
        sliding layers whose window is full take no more."""
        return sum(
            group.layers * group.kv_heads * group.width * element_bytes
            for group in self.cache
            if group.window is None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer. Sizes are channels; `window` is in tokens, None: all of the conversation.

    Of `delta`, `heads` are those of values and `kv_heads` those of keys, each `head_dim` wide.
    """

    mixing: Mixing = "attention"
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    value_dim: int = 0  # a value head's; mostly `head_dim`
    window: int | None = None
    keys_are_values: bool = False  # one projection makes both (Gemma 4's global layers)
    compression: int = 0  # tokens that share one place of the cache; 0: each has its own
    index_dim: int = 0  # of the keys by which sparse attention chooses; 0: it does not say
    groups: int = 0  # Mamba's
    state_size: int = 0  # Mamba's, for each channel
    kernel: int = 0  # of the convolutions of `delta`, `kda` and `mamba`
    caches: bool = True  # False: it uses the keys and values of a layer before it
    crosses: bool = False  # it attends to another sense, not to the conversation
    intermediate: int | None = None  # of a dense MLP; None: there is none
    experts: int = 0
    experts_per_token: int = 0
    expert_size: int = 0
    shared_size: int = 0  # of all shared experts of the layer together
