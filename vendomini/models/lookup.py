"""The sizes of a model by its name: from its files, the catalogue or the size in the name."""

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vendomini.errors import ConfigError
from vendomini.identity import is_local
from vendomini.models import catalogue, support
from vendomini.models.config_json import spec_of_config
from vendomini.models.folder import config_file, find_folder, read_json, stored_weight_bytes
from vendomini.models.naming import SizeInName, key, size_in_name, stored_as
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec

GUESS_MARGIN = 0.25
"""By how much a weight taken from a name may be wrong: names round, and count or leave out
embeddings and other senses."""

LARGEST_DENSE = 450.0
"""10**9 parameters: all larger ones are of experts. Llama 3.1's 405 are the most that are not."""

USUAL_ACTIVE = 0.045
"""The share of them that a token reads: 37 of DeepSeek-V3's 671, 32 of Kimi-K2's 1026."""

# (up to 10**9 parameters, hidden size, heads, KV heads, layers, intermediate size), of the usual
# dense models of that size: Llama, Qwen and Mistral.
_DENSE = (
    (0.7, 1024, 16, 8, 24, 2816),
    (2.0, 2048, 32, 8, 20, 6144),
    (5.0, 3072, 24, 8, 28, 8192),
    (11.0, 4096, 32, 8, 32, 14336),
    (18.0, 5120, 40, 8, 40, 13824),
    (26.0, 5120, 32, 8, 40, 32768),
    (45.0, 6144, 48, 8, 60, 20480),
    (90.0, 8192, 64, 8, 80, 28672),
    (200.0, 12288, 96, 8, 88, 28672),
    (math.inf, 16384, 128, 8, 126, 53248),
)
# (up to 10**9 parameters in all, hidden size, heads, KV heads, layers, expert size, experts, taken
# for a token), of the usual models of experts: Qwen3, GLM-4.5, DeepSeek.
_MIXED = (
    (10.0, 2048, 16, 4, 24, 1024, 64, 8),
    (60.0, 2048, 32, 4, 48, 768, 128, 8),
    (180.0, 4096, 64, 8, 46, 1408, 128, 8),
    (450.0, 4096, 64, 8, 94, 1536, 128, 8),
    (math.inf, 7168, 64, 8, 61, 2048, 384, 8),
)


def model_spec(
    name: str,
    revision: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    params_b: float | None = None,
) -> ModelSpec:
    """The sizes of the model of this name, a hub id or a local folder.

    From its config.json where that is on this machine (weights need not be), else from the
    catalogue, else from `params_b` (in 10**9) or the size in its name, with a wide margin.
    Raises `ConfigError` for a damaged config.json, an architecture that nobody knows, or a name
    that says nothing.
    """
    folder = find_folder(name, revision, environ)
    if folder is not None and (is_local(name) or (folder / "config.json").is_file()):
        file = config_file(folder)
        return spec_of_file(file, id=name, weight_bytes=stored_weight_bytes(folder))
    if found := catalogue.find(name):
        return found.spec(name)
    size = SizeInName(params_b) if params_b else size_in_name(name)
    if params_b and (named := size_in_name(name)):
        size = SizeInName(params_b, active=named.active, experts=named.experts)
    if size is None:
        raise _unknown(name)
    source = f"{params_b:g}e9 parameters, as given" if params_b else f"the size in `{name}`"
    spec = _spec_of_size(name, size, source=source)
    method = stored_as(name)
    return requantized(spec, method) if method else spec


def spec_of_file(file: Path, *, id: str, weight_bytes: int | None = None) -> ModelSpec:
    """The sizes that a config.json file describes. Raises `ConfigError` if it cannot."""
    config = read_json(file)
    beside = file.with_name("hf_quant_config.json")  # where ModelOpt writes it
    if "quantization_config" not in config and beside.is_file():
        said = read_json(beside).get("quantization")
        if isinstance(said, dict):
            config["quantization_config"] = {"quant_method": "modelopt", **said}
    spec = spec_of_config(config, id=id, weight_bytes=weight_bytes, source=str(file))
    if not _is_known(spec.architecture, spec.model_type):
        raise _unknown_architecture(file, spec.architecture or str(spec.model_type))
    return replace(spec, sources={**spec.sources, "config": str(file)})


def is_listed(name: str) -> bool:
    """Whether the catalogue has the model of this name."""
    return catalogue.find(name) is not None


def nearest_names(name: str) -> list[str]:
    """The three names of the catalogue that are most like this one."""
    names = {
        key(each, 0): each for entry in catalogue.entries() for each in (entry.id, *entry.aliases)
    }
    return [names[each] for each in _nearest(key(name, 0), sorted(names))]


# -- private -------------------------------------------------------------------------------


def _unknown(name: str) -> ConfigError:
    near = ", ".join(f"`{each}`" for each in nearest_names(name))
    return ConfigError(
        f"nothing is known of the model `{name}`: it is not on this machine, not in the "
        "catalogue, and its name says no size",
        hint=f"the nearest known: {near}; `vendomini models` lists all; or give its config.json",
    )


def _spec_of_size(id: str, size: SizeInName, *, source: str) -> ModelSpec:
    """A usual model of that size: its dimensions are others', scaled in its layers to the size."""
    if size.active is None and size.total > LARGEST_DENSE:
        size = SizeInName(size.total, active=size.total * USUAL_ACTIVE)
    shape = _usual_config(size)
    spec = spec_of_config(shape, id=id, weight_bytes=None, source=source)
    params = round(size.total * 1e9)
    scale = params / spec.params
    active = round(size.active * 1e9) if size.active else round(spec.active_params * scale)
    experts = round(spec.expert_params * scale)
    return replace(
        spec,
        architecture=None,
        model_type=None,
        params=params,
        active_params=min(active, params),
        embedding_params=min(spec.embedding_params, params // 2),
        expert_params=experts,
        max_model_len=None,
        weight_bytes=2 * params,
        weight_margin=GUESS_MARGIN,
        is_guess=True,
        sources={"params": source, "weight_bytes": f"guessed from {source}", "sizes": "as usual"},
    )


def _usual_config(size: SizeInName) -> dict[str, object]:
    common = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256}
    if size.active is None or size.active >= size.total:
        row = next(row for row in _DENSE if size.total <= row[0])
        _, hidden, heads, kv_heads, layers, intermediate = row
        dims = {"intermediate_size": intermediate, "tie_word_embeddings": size.total < 4}
        experts: dict[str, object] = {}
    else:
        mixed = next(row for row in _MIXED if size.total <= row[0])
        _, hidden, heads, kv_heads, layers, expert, number, taken = mixed
        dims = {"intermediate_size": 4 * hidden}
        experts = {"num_experts": number, "num_experts_per_tok": taken}
        experts["moe_intermediate_size"] = expert
        if size.experts:
            big = 14336 if size.total < 80 else 16384
            experts = {"num_experts": size.experts, "num_experts_per_tok": 2}
            experts["moe_intermediate_size"] = big
            hidden, heads, kv_heads, layers = (
                (4096, 32, 8, 32) if size.total < 80 else (6144, 48, 8, 56)
            )
    return {
        **common,
        **dims,
        **experts,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers,
    }


def _is_known(architecture: str | None, model_type: str | None) -> bool:
    """Whether vLLM or transformers has this architecture, or the catalogue a model of it."""
    return support.is_known(architecture, model_type) or any(
        (architecture in (entry.config.get("architectures") or ()))
        or model_type == entry.config.get("model_type")
        for entry in catalogue.entries()
    )


def _unknown_architecture(file: Path, name: str) -> ConfigError:
    versions = support.versions()
    near = ", ".join(f"`{each}`" for each in _nearest(name, support.known_names()))
    return ConfigError(
        f"`{file}` is of the architecture `{name}`, which neither vLLM {versions['vllm']} nor "
        f"transformers {versions['transformers']} knows",
        hint=f"the nearest they know: {near}",
    )


def _nearest(name: str, choices: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, choices, n=3, cutoff=0.0)
