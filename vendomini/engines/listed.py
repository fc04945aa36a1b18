"""The models that a server lists, in any server's form. Pure."""

import json
from dataclasses import dataclass
from typing import Any

from vendomini.engines.words import beginning, complaint_in
from vendomini.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A model that can be asked for. None: the server does not say."""

    id: str
    max_model_len: int | None = None
    owned_by: str | None = None


def models_in(raw: bytes) -> tuple[Listed, ...]:
    """What an answer of ``/v1/models`` lists. Raises `EngineError` if it is no such list."""
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise EngineError(
            f"the server's list of models is no JSON: {beginning(raw)}", hint=_HINT
        ) from error
    listed = told.get("data", told.get("models", told)) if isinstance(told, dict) else told
    if listed is None:  # an Ollama without models
        return ()
    if not isinstance(listed, list):
        raise EngineError(
            f"the server's list of models is not what the protocol says: {complaint_in(raw)}",
            hint=_HINT,
        )
    return tuple(
        Listed(id=name, max_model_len=_window(each), owned_by=_owner(each))
        for each in listed
        if isinstance(each, dict) and isinstance(name := each.get("id", each.get("name")), str)
    )


def _window(model: dict[str, Any]) -> int | None:
    """As vLLM and SGLang call it. What others tell is the model's, not what they give it."""
    length = model.get("max_model_len")
    is_length = isinstance(length, int) and not isinstance(length, bool) and length > 0
    return length if is_length else None


def _owner(model: dict[str, Any]) -> str | None:
    owner = model.get("owned_by")
    return owner if isinstance(owner, str) else None


_HINT = "is `engine.base_url` right? It mostly ends in `/v1`"
