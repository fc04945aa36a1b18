"""Parameters of a model's other senses: its vision tower and what joins it to the text."""

from collections.abc import Mapping
from typing import Any

from vendomini.models.fields import HIDDEN, LAYERS, Fields

TOWERS = ("vision_config", "visual", "vision_tower_config")


def vision_params(config: Mapping[str, Any], *, hidden: int) -> int:
    """Of the vision tower and its projector; 0: there is none, or nothing is said of it."""
    for name in TOWERS:
        tower = config.get(name)
        if isinstance(tower, dict):
            return _tower(tower, hidden)
    return 0


# -- private -------------------------------------------------------------------------------


def _tower(tower: Mapping[str, Any], text: int) -> int:
    """A vision transformer: patches, positions, layers with biases, then a projector."""
    fields = Fields.of(tower)
    width = fields.positive("embed_dim", *HIDDEN) or 1024
    if fields.positive("embed_dim") and fields.positive("hidden_size") == text:
        width = fields.positive("embed_dim") or width  # Qwen2-VL: `hidden_size` is the text's
    depth = fields.positive("depth", *LAYERS) or 24
    size = fields.positive("intermediate_size", "mlp_dim") or int(
        width * float(fields.value("mlp_ratio") or 4)
    )
    patch = fields.positive("patch_size", "spatial_patch_size") or 14
    frames = fields.positive("temporal_patch_size") or 1
    gated = str(fields.said.get("model_type", "")).startswith(("qwen2_5_vl", "pixtral"))
    layer = 4 * width * width + (3 if gated else 2) * width * size + 9 * width + size
    merged = fields.positive("spatial_merge_size")
    if merged:
        wide = width * merged * merged
        joined = wide * wide + wide * text
    else:
        joined = width * text + text * text
    return 3 * patch * patch * frames * width + depth * layer + joined
