"""How requests are put to a server, as its refusals teach: translated where that is exact. Pure.

A lesson is learned once and holds for all requests that follow. What cannot be put otherwise
without changing what was asked is one error that names the setting, before runs are spent.
"""

import re
from dataclasses import dataclass, replace

from vendomini.chat import MODEL, ChatRequest, CompletionRequest, Message
from vendomini.engines.template import alternating, filled, folded
from vendomini.engines.words import (
    Complaint,
    all_words,
    in_words,
    minds_empty,
    minds_system,
    minds_turns,
    refused_parameter,
)
from vendomini.errors import EngineLacks

_WANTS_OBJECT = re.compile(r"response_format.{0,80}should be 'text' or 'json_object'", re.DOTALL)

DEFAULT = 1.0
"""What temperature and top_p are in OpenAI's protocol where a request does not say."""

SETTINGS = {
    "temperature": f"`{MODEL}.temperature`",
    "top_p": f"`{MODEL}.top_p`",
    "max_tokens": f"`{MODEL}.max_tokens_per_call`",
    "max_completion_tokens": f"`{MODEL}.max_tokens_per_call`",
    "chat_template_kwargs": f"`{MODEL}.thinking`",
    "response_format": "reply_format `schema`",
    "stop": "stop texts",
    "n": "several choices (n > 1)",
    "logprobs": "log-probabilities",
    "top_logprobs": "log-probabilities",
}
"""Who asked for it, by the name in a body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """What a server is told otherwise, or not at all.

    `folds_system`: system texts lead the next user message. `alternates`: messages of one speaker
    in a row are one. `fills_empty`: an empty message of the assistant says that it was. `limit` is
    its name for `max_tokens`. `schema_in_object`: a schema goes with the type `json_object`, as
    llama.cpp's server for Python has it. `left_out` is what it does not take and need not be told.
    """

    folds_system: bool = False
    alternates: bool = False
    fills_empty: bool = False
    limit: str = "max_tokens"
    schema_in_object: bool = False
    left_out: frozenset[str] = frozenset()

    def put(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """A conversation as this server takes it."""
        if self.folds_system:
            messages = folded(messages)
        if self.alternates:
            messages = alternating(messages)
        return filled(messages) if self.fills_empty else messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a refusal teaches: the fields of a manner that change, the fact, and how to say it."""

    name: str
    fact: str
    said: str
    change: dict[str, object]

    def learned(self, manner: Manner) -> Manner:
        """The manner with this lesson, whatever it has learned meanwhile."""
        change = dict(self.change)
        if "left_out" in change:
            change["left_out"] = manner.left_out | {str(change["left_out"])}
        return replace(manner, **change)  # type: ignore[arg-type]


def lesson(
    complaint: Complaint,
    request: ChatRequest | CompletionRequest,
    asked: Manner,
    *,
    failed: bool = False,
) -> Lesson | None:
    """What to do otherwise than the refused request, which was put in the manner `asked`; None: the
    refusal teaches nothing.

    `failed`: it was told as a failure of the server's (500). Some tell so what a template or a
    schema refuses; nothing else that is minded is believed of it.

    Raises `EngineLacks` for what a server does not take and the request cannot do without.
    """
    words = all_words(complaint)
    if isinstance(request, ChatRequest):
        messages = asked.put(request.messages)
        if minds_system(words) and any(message.role == "system" for message in messages):
            return fold("refuses")
        if minds_turns(words) and alternating(messages) != messages:
            return Lesson(
                name="turns",
                fact="messages of one speaker in a row are sent as one",
                said="the server wants user and assistant to take turns: messages of one speaker "
                "in a row are sent as one",
                change={"alternates": True},
            )
        if minds_empty(words) and filled(messages) != messages:
            return Lesson(
                name="empty replies",
                fact="sent back as a note that they were empty",
                said="the server takes no empty message: where a reply was empty, the conversation "
                "says so",
                change={"fills_empty": True},
            )
    has_schema = request.reply_format.json_schema is not None
    if has_schema and not asked.schema_in_object and _WANTS_OBJECT.search(words):
        return Lesson(
            name="schemas",
            fact="sent as `json_object` with a `schema`",
            said="the server takes no `json_schema`: a schema is sent as `json_object` with it",
            change={"schema_in_object": True},
        )
    refused = refused_parameter(complaint)
    if refused is None or (failed and refused != "response_format"):
        return None
    if refused == "response_format" and request.reply_format.json_schema is None:
        return None
    if refused == "max_tokens" and asked.limit == "max_tokens" and _is_unknown(complaint):
        return Lesson(
            name="max_tokens",
            fact="asked for as max_completion_tokens",
            said="the model takes no `max_tokens`: it is asked for as `max_completion_tokens`",
            change={"limit": "max_completion_tokens"},
        )
    if refused not in asked.left_out and _is_needless(refused, request):
        seed = ": its replies cannot be repeated" if refused == "seed" else ""
        return Lesson(
            name=refused,
            fact="not sent: the server refuses it",
            said=f"the server does not take `{refused}`, which is left out{seed}",
            change={"left_out": refused},
        )
    value = getattr(request.sampling, refused, None)
    asked_for = SETTINGS.get(refused, f"`{refused}`") + (f" {value}" if value is not None else "")
    raise EngineLacks(
        f"the server does not take {asked_for}: {in_words(complaint)}", hint=_what_fits(refused)
    )


def fold(does: str) -> Lesson:
    """The lesson of a template that `does` something to system messages other than say them."""
    return Lesson(
        name="system messages",
        fact="put before the first user message",
        said=f"the model's chat template {does} system messages: "
        "their text is put before the first user message",
        change={"folds_system": True},
    )


def _is_unknown(complaint: Complaint) -> bool:
    """Whether a server does not know a parameter at all, rather than mind its value."""
    minds_value = ("too large", "valid range", "must be", "should be", " > ")
    return not any(words in complaint.message for words in minds_value)


def _is_needless(name: str, request: ChatRequest | CompletionRequest) -> bool:
    """Whether a request says the same without it. A seed is never more than a best effort there."""
    if name in ("temperature", "top_p"):
        return float(getattr(request.sampling, name)) == DEFAULT
    return name == "seed"


def _what_fits(name: str) -> str:
    match name:
        case "temperature" | "top_p":
            return f"set {SETTINGS[name]} to 1, which every server takes"
        case "response_format":
            return "use reply_format `text`, or a model that can, such as any of vLLM's"
        case "max_tokens" | "max_completion_tokens":
            return f"lower {SETTINGS[name]}"
        case "chat_template_kwargs":
            return f"set {SETTINGS[name]} to `default`"
    return "use a server that can, such as vLLM, or do not ask for it"
