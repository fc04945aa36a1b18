"""What a server's words mean, when it says no or answers something else. Pure."""

import json
import re


def complaint_in(content: bytes) -> str:
    """What a server says in an error's body, in its words and with its code."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return beginning(content)
    error = told.get("error", told) if isinstance(told, dict) else told
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return beginning(content)
    message = error.get("message") or error.get("detail")
    if not isinstance(message, str):
        return beginning(content)
    codes = [error.get("code"), error.get("param")]
    named = [code for code in codes if isinstance(code, str) and code not in message]
    return f"{message} ({', '.join(named)})" if named else message


def beginning(content: bytes) -> str:
    """The first words of an answer that is not what it should be, for an error message."""
    words = " ".join(content[:1000].decode(errors="replace").split())
    return f"{words[:117]}..." if len(words) > 120 else words or "nothing"


def is_too_long(refusal: str) -> bool:
    """Whether a refusal means that the prompt does not fit the model's context."""
    return _TOO_LONG.search(refusal) is not None


def prompt_tokens_in(refusal: str) -> int:
    """How long the prompt was that did not fit, in tokens; 0: it was not told."""
    found = _PROMPT_TOKENS.search(refusal)
    return int(next(group for group in found.groups() if group)) if found else 0


def minds_system(refusal: str) -> bool:
    """Whether a refusal means that the chat template takes no system message."""
    return _NO_SYSTEM.search(refusal) is not None


_TOO_LONG = re.compile(
    r"maximum context length|max_model_len|context_length|context (length|size|window)"
    r"|prompt is too long",
    re.IGNORECASE,
)
_PROMPT_TOKENS = re.compile(
    r"prompt has (\d+)|contains (?:at least )?(\d+) (?:input )?tokens"
    r"|\((\d+) in the messages|resulted in (\d+) tokens|input length \((\d+)\)",
    re.IGNORECASE,
)
_NO_SYSTEM = re.compile(r"system (role|message)|conversation roles must alternate", re.IGNORECASE)
