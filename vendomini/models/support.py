"""Which architectures vLLM and transformers know, and what transformers reads into a silence.

The lists are data (`data/architectures.json`), taken from the packages by
`tools/make_architectures.py`; `versions` says which.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

ENCODERS = frozenset({
    "bert", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "rembert", "roberta", "roformer", "xlm-roberta",
})  # fmt: skip
"""Types that read a text as a whole, although transformers has a class of each that writes."""


def is_known(architecture: str | None, model_type: str | None) -> bool:
    """Whether vLLM or transformers has code for a model of these names."""
    return (architecture is not None and vllm_knows(architecture)) or (
        model_type is not None and transformers_knows(model_type)
    )


def writes_text(architecture: str | None, model_type: str | None) -> bool:
    """Whether a model of these names continues text, as far as vLLM or transformers know."""
    return architecture in _names("vllm", "writing") or (
        model_type in _names("transformers", "writing") and not _encodes(architecture, model_type)
    )


def vllm_knows(architecture: str) -> bool:
    """Whether vLLM has a class of its own for this entry of `architectures`."""
    return architecture in _names("vllm", "architectures")


def transformers_knows(model_type: str) -> bool:
    """Whether transformers has a configuration for this `model_type`."""
    return model_type in _names("transformers", "model_types")


def known_names() -> list[str]:
    """All architectures that vLLM knows and all types that transformers does."""
    return sorted(_names("vllm", "architectures") | _names("transformers", "model_types"))


def versions() -> Mapping[str, str]:
    """By package, the version its list was taken from."""
    return {package: str(part["version"]) for package, part in _data().items()}


def defaults(model_type: str | None) -> Mapping[str, Any]:
    """What transformers takes for a key that a config.json of this type leaves out."""
    found: Mapping[str, Any] = _data()["transformers"]["defaults"].get(model_type, {})
    return found


# -- private -------------------------------------------------------------------------------


def _encodes(architecture: str | None, model_type: str | None) -> bool:
    ends = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "EncoderModel")
    if architecture is None:
        return False
    writes = architecture.endswith(("ForCausalLM", "LMHeadModel"))
    return architecture.endswith(ends) or (model_type in ENCODERS and not writes)


@functools.cache
def _names(package: str, key: str) -> frozenset[str]:
    return frozenset(_data()[package][key])


@functools.cache
def _data() -> dict[str, dict[str, Any]]:
    file = importlib.resources.files("vendomini") / "data" / "architectures.json"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return found
