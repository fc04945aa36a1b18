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
    """A vision transformer: patches, positions, layers with biases, then a projector.

    Exact for Qwen's towers; of others a per cent or two may be missing.
    """
    fields = Fields.of(tower)
    model_type = str(fields.said.get("model_type", ""))
    qwen = model_type.startswith(("qwen2_vl", "qwen2_5_vl", "qwen3"))
    width = fields.positive("embed_dim", *HIDDEN) or 1024
    depth = fields.positive("depth", *LAYERS) or 24
    depth += fields.positive("num_global_layers") or 0
    size = fields.positive("intermediate_size", "mlp_dim") or int(
        width * float(fields.value("mlp_ratio") or 4)
    )
    patch = fields.positive("patch_size", "spatial_patch_size") or 14
    frames = fields.positive("temporal_patch_size") or 1
    if model_type.startswith("glm4v"):  # its MLPs are as wide as the text, its merger as they say
        out = fields.positive("out_hidden_size") or text
        joined = out * out + 3 * out * size + 4 * width * out
        size = out
    total = 3 * patch * patch * frames * width
    if model_type.startswith(("qwen2_5_vl", "pixtral", "glm4v")):  # gated, norms without bias
        biased = 3 * width + width + 2 * size + width if model_type.startswith("qwen") else 0
        total += depth * (4 * width * width + 3 * width * size + 2 * width + biased)
    else:
        total += depth * (4 * width * width + 2 * width * size + 9 * width + size)
    total += _positions(fields, width, patch)
    if model_type.startswith("mllama"):  # Llama 3.2's
        tiles = 9 * (1 + (560 // patch) ** 2) * width + 2 * 9 * 4 * width
        return total + tiles + (fields.positive("vision_output_dim") or 0) * text
    if model_type.startswith("glm4v"):
        return total + joined
    merge = fields.positive("spatial_merge_size")
    if qwen and merge:
        out = fields.positive("out_hidden_size") or text
        wide = width * merge * merge
        joined = wide * wide + wide + wide * out + out
        deep = len(fields.list("deepstack_visual_indexes") or ())
        norm = width if model_type.startswith("qwen2_5") else 2 * width
        return total + (1 + deep) * joined + norm + deep * 2 * wide
    if model_type.startswith("siglip"):  # Gemma 3's, with its norms
        return total + width * text + 4 * width
    if merge:
        return total + width * width * merge * merge + width * text + text * text
    return total + width * text + text * text


def _positions(fields: Fields, width: int, patch: int) -> int:
    if number := fields.positive("num_position_embeddings"):
        return number * width + width  # and the patches' bias
    model_type = str(fields.said.get("model_type", ""))
    size = fields.positive("image_size")
    if size is None or not model_type.startswith(("clip", "siglip", "intern", "mllama")):
        return 0
    return (size // patch) ** 2 * width
