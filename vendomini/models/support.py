"""Which architectures vLLM and transformers know, and what transformers reads into a silence.

The lists are data (`data/architectures.json`), taken from the packages by
`tools/make_architectures.py`; `VLLM_VERSION` and `TRANSFORMERS_VERSION` say which.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any


def vllm_knows(architecture: str) -> bool:
    """Whether vLLM has a class of its own for this entry of `architectures`."""
    return architecture in _names("vllm", "architectures")


def vllm_writes(architecture: str) -> bool:
    """Whether that class continues text, alone or beside other senses."""
    return architecture in _names("vllm", "writing")


def transformers_knows(model_type: str) -> bool:
    """Whether transformers has a configuration for this `model_type`."""
    return model_type in _names("transformers", "model_types")


def transformers_writes(model_type: str) -> bool:
    """Whether transformers has a class for it that continues text."""
    return model_type in _names("transformers", "writing")


def versions() -> Mapping[str, str]:
    """By package, the version its list was taken from."""
    return {package: str(part["version"]) for package, part in _data().items()}


def defaults(model_type: str | None) -> Mapping[str, Any]:
    """What transformers takes for a key that a config.json of this type leaves out."""
    found: Mapping[str, Any] = _data()["transformers"]["defaults"].get(model_type, {})
    return found


def known_architectures() -> frozenset[str]:
    return _names("vllm", "architectures")


def known_model_types() -> frozenset[str]:
    return _names("transformers", "model_types")


# -- private -------------------------------------------------------------------------------


@functools.cache
def _data() -> dict[str, dict[str, Any]]:
    file = importlib.resources.files("vendomini") / "data" / "architectures.json"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return found


@functools.cache
def _names(package: str, key: str) -> frozenset[str]:
    return frozenset(_data()[package][key])
