"""What a request is called in a reply log: a hash of all that is asked."""

import hashlib

import msgspec

from vendomini.chat import (
    AGENT,
    TEXT,
    ChatRequest,
    CommandRequest,
    Request,
    Sampling,
    ScoreRequest,
    kind_of,
)

REQUEST_VERSION = 1
"""Version of the hashed form of a request. A change of it makes old reply logs unreadable."""


def request_hash(request: Request) -> str:
    """32 hexadecimal digits that name what was asked: equal requests, equal names.

    Covers the kind and all fields, with defaults left out, in messages and tools as well, so
    that a new field with a default renames no old request.
    Neither the engine nor the rendered text enters.
    """
    content = msgspec.json.encode(
        {"version": REQUEST_VERSION, "kind": kind_of(request), **_without_defaults(request)},
        order="deterministic",
    )
    return hashlib.sha256(content).hexdigest()[:32]


_DEFAULT_SAMPLING = Sampling()


def _without_defaults(request: Request) -> dict[str, object]:
    named: dict[str, object] = {}
    if isinstance(request, ChatRequest):
        named["messages"] = request.messages
        if request.thinking != "default":
            named["thinking"] = request.thinking
        if request.tools:
            named["tools"] = request.tools
    elif isinstance(request, CommandRequest):
        named["argv"] = request.argv
        if request.stdin:
            named["stdin"] = request.stdin
    else:
        named["prompt"] = request.prompt
    if isinstance(request, ScoreRequest):
        named["continuations"] = request.continuations
    elif not isinstance(request, CommandRequest):
        if request.sampling != _DEFAULT_SAMPLING:
            named["sampling"] = {
                name: getattr(request.sampling, name)
                for name in Sampling.__dataclass_fields__
                if getattr(request.sampling, name) != getattr(_DEFAULT_SAMPLING, name)
            }
        if request.reply_format != TEXT:
            named["reply_format"] = request.reply_format
    if request.role != AGENT:
        named["role"] = request.role
    if request.seed is not None:
        named["seed"] = request.seed
    return named
