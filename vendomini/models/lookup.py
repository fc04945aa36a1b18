"""Everything that is known of a model, by its name: from its files, the catalogue or its name."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vendomini.errors import ConfigError
from vendomini.identity import is_local
from vendomini.models import catalogue, support
from vendomini.models.config_json import spec_of_config
from vendomini.models.folder import ModelIncomplete, find_folder, read_json, stored_weight_bytes
from vendomini.models.guess import spec_of_size
from vendomini.models.naming import SizeInName, key, size_in_name, stored_as
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec


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
        return spec_of_folder(folder, id=name)
    if found := catalogue.find(name):
        return found.spec(name)
    size = SizeInName(params_b) if params_b else size_in_name(name)
    if params_b and (named := size_in_name(name)):
        size = SizeInName(params_b, active=named.active, experts=named.experts)
    if size is None:
        raise _unknown(name)
    source = f"{params_b:g}e9 parameters, as given" if params_b else f"the size in `{name}`"
    spec = spec_of_size(name, size, source=source)
    method = stored_as(name)
    return requantized(spec, method) if method else spec


def spec_of_folder(folder: Path, *, id: str) -> ModelSpec:
    """The sizes of a model whose config.json is in `folder`; its weights may be missing."""
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder `{folder}`",
            hint="give a hub id such as `org/name`, or a folder that holds a config.json",
        )
    if not (folder / "config.json").is_file():
        raise ModelIncomplete(
            f"`{folder}` has no config.json",
            hint="a local model is a folder with config.json, tokenizer and weights, complete",
        )
    return spec_of_file(folder / "config.json", id=id, weight_bytes=stored_weight_bytes(folder))


def spec_of_file(file: Path, *, id: str, weight_bytes: int | None = None) -> ModelSpec:
    """The sizes that a config.json file describes. Raises `ConfigError` if it cannot."""
    config = read_json(file)
    beside = file.with_name("hf_quant_config.json")  # where ModelOpt writes it
    if "quantization_config" not in config and beside.is_file():
        said = read_json(beside).get("quantization")
        if isinstance(said, dict):
            config["quantization_config"] = {"quant_method": "modelopt", **said}
    architectures = config.get("architectures") or [None]
    architecture = architectures[0] if isinstance(architectures, list) else None
    model_type = config.get("model_type")
    spec = spec_of_config(config, id=id, weight_bytes=weight_bytes, source=str(file))
    if not known(architecture, model_type):
        raise _unknown_architecture(file, str(architecture or model_type))
    return replace(spec, sources={**spec.sources, "config": str(file)})


def known(architecture: str | None, model_type: str | None) -> bool:
    """Whether vLLM or transformers has this architecture, or the catalogue a model of it."""
    return (
        (architecture is not None and support.vllm_knows(architecture))
        or (model_type is not None and support.transformers_knows(model_type))
        or any(
            (architecture in (entry.config.get("architectures") or ()))
            or model_type == entry.config.get("model_type")
            for entry in catalogue.entries()
        )
    )


# -- private -------------------------------------------------------------------------------


def _unknown(name: str) -> ConfigError:
    names = {
        key(each, 0): each for entry in catalogue.entries() for each in (entry.id, *entry.aliases)
    }
    near = ", ".join(f"`{names[each]}`" for each in _nearest(key(name, 0), sorted(names)))
    return ConfigError(
        f"nothing is known of the model `{name}`: it is not on this machine, not in the "
        "catalogue, and its name says no size",
        hint=f"the nearest known: {near}; `vendomini models` lists all; or give its config.json",
    )


def _nearest(name: str, choices: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, choices, n=3, cutoff=0.0)


def _unknown_architecture(file: Path, name: str) -> ConfigError:
    versions = support.versions()
    choices = sorted(support.known_architectures() | support.known_model_types())
    near = ", ".join(f"`{each}`" for each in _nearest(name, choices))
    return ConfigError(
        f"`{file}` is of the architecture `{name}`, which neither vLLM {versions['vllm']} nor "
        f"transformers {versions['transformers']} knows",
        hint=f"the nearest they know: {near}",
    )
