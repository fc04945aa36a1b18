"""What a conversation takes in memory while it is open: keys and values, and constant states."""

from collections.abc import Mapping
from typing import Any

from vendomini.models.fields import Fields
from vendomini.models.layers import Layer
from vendomini.models.params import mamba_kernel, mamba_sizes
from vendomini.models.spec import CacheKind, CacheLayers

STATE_BYTES = 4
"""vLLM keeps states of linear attention and Mamba in the model's type or in 32 bits."""


def cache_of(config: Mapping[str, Any], layers: tuple[Layer, ...]) -> tuple[CacheLayers, ...]:
    """Layers that cache, those alike together, in the order they first appear."""
    counted: dict[tuple[CacheKind, int, int, int | None], int] = {}
    for layer in layers:
        if not layer.caches or layer.mixing not in {"attention", "latent"}:
            continue
        if layer.mixing == "latent":
            key: tuple[CacheKind, int, int, int | None] = ("latent", 1, layer.head_dim, None)
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
            linear = fields.mapping("linear_attn_config")
            head_dim = int(linear.get("head_dim", 0))
            wide = int(linear.get("num_heads", 0)) * head_dim
            kernel = int(linear.get("short_conv_kernel_size", 4))
            total += 2 * 3 * wide * (kernel - 1) + STATE_BYTES * wide * head_dim
    return total
