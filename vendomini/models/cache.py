"""What a conversation takes in memory while it is open: keys and values, and constant states."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from vendomini.models.fields import Fields
from vendomini.models.layers import Layer
from vendomini.models.params import kda_sizes, mamba_kernel, mamba_sizes
from vendomini.models.spec import CacheKind, CacheLayers

Key: TypeAlias = tuple[CacheKind, int, int, int | None]
"""What makes caches of layers alike: kind, heads, width, window."""

PACKED_BYTES, INDEXER_BYTES = 584, 132
STATE_BYTES = 4
"""vLLM keeps states of linear attention and Mamba in the model's type or in 32 bits."""


def cache_of(config: Mapping[str, Any], layers: tuple[Layer, ...]) -> tuple[CacheLayers, ...]:
    """Layers that cache, those alike together, in the order they first appear."""
    counted: dict[Key, int] = {}
    key: Key
    for layer in layers:
        if layer.mixing == "compressed":
            for key in _compressed(layer):
                counted[key] = counted.get(key, 0) + 1
        if not layer.caches or layer.mixing not in {"attention", "latent"}:
            continue
        if layer.mixing == "latent":
            key = ("latent", 1, layer.head_dim, None)
        else:
            kind: CacheKind = "full" if layer.window is None else "sliding"
            key = (kind, layer.kv_heads, layer.head_dim + layer.value_dim, layer.window)
        counted[key] = counted.get(key, 0) + 1
    groups = [
        CacheLayers(kind=kind, layers=number, kv_heads=heads, width=width, window=window)
        for (kind, heads, width, window), number in counted.items()
    ]
    fields = Fields.of(config)
    index = fields.positive("index_head_dim")
    latent = sum(group.layers for group in groups if group.kind == "latent")
    if index and latent:  # the indexer's keys, of one head, in 8 bits with a scale
        groups.append(
            CacheLayers(kind="latent", layers=latent, kv_heads=1, width=(index + 4 + 1) // 2)
        )
    return tuple(groups)


def _compressed(layer: Layer) -> Iterator[Key]:
    """DeepSeek-V4: the last tokens whole, all before as one place for each `compression` tokens.

    A place takes 584 bytes as vLLM packs it (8 bits, with scales), and where sparse attention
    chooses among them, 132 for its indexer.
    """
    yield "sliding", 1, PACKED_BYTES // 2, layer.window
    if layer.compression:
        indexer = INDEXER_BYTES if layer.compression == 4 else 0
        yield "latent", 1, -(-(PACKED_BYTES + indexer) // (2 * layer.compression)), None


def state_bytes(config: Mapping[str, Any], layers: tuple[Layer, ...]) -> int:
    """Bytes of a sequence's constant state, all layers: convolutions in 16 bits, states in 32."""
    fields = Fields.of(config)
    total = 0
    for layer in layers:
        if layer.mixing == "mamba":
            heads, head_dim, groups, size = mamba_sizes(fields)
            inner = heads * head_dim
            through = (inner + 2 * groups * size) * (mamba_kernel(fields) - 1)
            total += 2 * through + STATE_BYTES * inner * size
        elif layer.mixing == "delta":
            key_dim = fields.positive("linear_key_head_dim") or 0
            keys = (fields.positive("linear_num_key_heads") or 0) * key_dim
            values = (fields.positive("linear_num_value_heads") or 0) * (
                fields.positive("linear_value_head_dim") or 0
            )
            kernel = fields.positive("linear_conv_kernel_dim") or 4
            total += 2 * (2 * keys + values) * (kernel - 1) + STATE_BYTES * values * key_dim
        elif layer.mixing == "kda":
            kda_heads, head_dim, kernel = kda_sizes(fields)
            wide = kda_heads * head_dim
            total += 2 * 3 * wide * (kernel - 1) + STATE_BYTES * wide * head_dim
    return total
