"""What a server's words mean, when it says no or answers something else. Pure.

Codes and types are believed first; servers that have none are known by their wording, each as
it stands in its source, its documentation or a report of it.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

MOST_READ = 4_000
"""So many characters of a message are read: it may quote a whole conversation."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a server says in an error's body. Empty, and 0 tokens: it does not say.

    `kind` is its `type`, `param` what of the request it minds, `prompt_tokens` how long that was.
    `generated` is what the model wrote, where the server could make nothing of that. `is_body`: its
    shape is unknown, and the message is all of it.
    """

    message: str
    code: str = ""
    kind: str = ""
    param: str = ""
    prompt_tokens: int = 0
    generated: str = ""
    is_body: bool = False

    def __post_init__(self) -> None:
        for name in ("message", "code", "kind", "param"):
            object.__setattr__(self, name, getattr(self, name)[:MOST_READ])


def complaint_of(content: bytes) -> Complaint:
    """An error's body, in any server's form."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return _body(content)
    return _complaint(told, content, left=3)


def _body(content: bytes) -> Complaint:
    words = content[: 4 * MOST_READ].decode(errors="replace").split()
    return Complaint(" ".join(words), is_body=True)


def _complaint(told: Any, content: bytes, *, left: int) -> Complaint:
    """`left` is how often an error may be wrapped in another's text."""
    if isinstance(told, list) and told:  # Gemini's
        told = told[0]
    if not isinstance(told, dict):
        return Complaint(told) if isinstance(told, str) else _body(content)
    error = told.get("error") or told
    if isinstance(error, str):
        error = {"message": error, "type": told.get("error_type")}
    if not isinstance(error, dict):
        return _body(content)
    if isinstance(error.get("detail"), list):  # pydantic's
        return _of_fields(error["detail"]) or _body(content)
    message = error.get("message") or error.get("detail") or error.get("msg")
    if isinstance(message, dict | list) and left:  # Mistral's
        told = message if isinstance(message, dict) else {"detail": message}
        return _complaint(told, content, left=left - 1)
    if not isinstance(message, str):
        return _body(content)
    tokens = error.get("n_prompt_tokens")
    found = Complaint(
        message,
        code=_text(error.get("code")) or _text(told.get("error_code")),
        kind=_text(error.get("type")) or _text(error.get("status")),
        param=_text(error.get("param")),
        prompt_tokens=tokens if isinstance(tokens, int) else 0,
        generated=_text(error.get("failed_generation")),  # Groq's
    )
    inner = _wrapped(error)
    if inner is None or not left:
        return found
    cause = _complaint(inner, content, left=left - 1)
    words = cause.message if message.lstrip().startswith("{") else f"{message}: {cause.message}"
    return Complaint(
        words,
        code=cause.code or found.code,
        kind=cause.kind or found.kind,
        param=cause.param or found.param,
        prompt_tokens=cause.prompt_tokens or found.prompt_tokens,
        generated=cause.generated or found.generated,
    )


def _wrapped(error: dict[str, Any]) -> Any:
    """The error of a server behind this one, which it hands on as text; None: there is none."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None  # OpenRouter's
    text = raw or error.get("message")
    if not isinstance(text, str):
        return text
    if not text.lstrip().startswith(("{", "[")):
        return raw
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return raw


def _of_fields(details: list[Any]) -> Complaint | None:
    """What FastAPI says of the fields of a request; None: it is something else."""
    known = [
        each for each in details if isinstance(each, dict) and isinstance(each.get("msg"), str)
    ]
    if not known:
        return None
    places = [[str(part) for part in each.get("loc") or ()] for each in known]
    said = [
        f"{'.'.join(place[-1:])}: {each['msg']}".removeprefix(": ")
        for place, each in zip(places, known, strict=True)
    ]
    return Complaint(
        "; ".join(said), kind=_text(known[0].get("type")), param="".join(places[0][-1:])
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def complaint_in(content: bytes) -> str:
    """What a server says in an error's body, in its words and with its code."""
    return in_words(complaint_of(content))


def in_words(complaint: Complaint) -> str:
    """For a person: with the code and what it minds, where its words do not have them."""
    if complaint.is_body:
        return beginning(complaint.message.encode(errors="replace"))
    return all_words(complaint)


def all_words(complaint: Complaint) -> str:
    """All that it says, to look for something in it."""
    named = [
        code for code in (complaint.code, complaint.param) if code and code not in complaint.message
    ]
    return f"{complaint.message} ({', '.join(named)})" if named else complaint.message


def beginning(content: bytes) -> str:
    """The first words of an answer that is not what it should be, for an error message."""
    words = " ".join(content[:1000].decode(errors="replace").split())
    return f"{words[:117]}..." if len(words) > 120 else words or "nothing"


BLANK = b" \t\r\n\xef\xbb\xbf"
"""What may stand before a text, its byte order mark too."""


def error_status(content: bytes, *, other: int | None = None) -> int | None:
    """The status that an error's body names which came with status 200; None: it is no such.

    OpenRouter answers so when the server behind it fails. `other` is that of an error that names
    no status.
    """
    begun = content.lstrip(BLANK)[:200]
    if b'"error"' not in begun or b'"choices"' in begun:
        return None
    try:
        told = json.loads(content.lstrip(BLANK))
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("choices"):
        return None
    error = told if told.get("object") == "error" else told.get("error")
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, int) and 400 <= status < 600:
        return status
    return other if error else None


# -- too long --------------------------------------------------------------------------------------


def is_too_long(refusal: str | Complaint) -> bool:
    """Whether a refusal means that the prompt does not fit the model's context."""
    complaint = Complaint(refusal) if isinstance(refusal, str) else refusal
    if {complaint.code, complaint.kind, complaint.param} & _TOO_LONG_CODES:
        return True
    return _TOO_LONG.search(all_words(complaint)) is not None


def prompt_tokens_in(refusal: str | Complaint) -> int:
    """How long the prompt was that did not fit, in tokens; 0: it was not told."""
    complaint = Complaint(refusal) if isinstance(refusal, str) else refusal
    if complaint.prompt_tokens:
        return complaint.prompt_tokens
    for pattern in _PROMPT_TOKENS:
        found = pattern.search(complaint.message)
        if found:
            return int(found[1].replace(",", ""))
    return 0


_TOO_LONG_CODES = frozenset(
    {
        "context_length_exceeded",  # OpenAI, Groq, llama-cpp-python
        "context_length",  # our own server
        "exceed_context_size_error",  # llama.cpp
        "model_context_window_exceeded",  # Z.ai
        "request_too_large",  # Anthropic
        "string_above_max_length",  # OpenAI, of one message
        "input_tokens",  # vLLM's param
        "input_text",  # vLLM's, where it did not even tokenize
    }
)
_WINDOW = r"context[ _](?:length|size|window|limit)"
_TOO_LONG = re.compile(
    "|".join(
        (
            r"max(?:imum)?(?: allowed)? (?:context|prompt|input|model|sequence)"
            r" (?:length|size|window|limit)",
            r"max_model_len",
            r"context_length_exceeded|exceed_context_size|context_?window_?exceeded",
            r"\(context_length\b",
            rf"(?:exceed|longer|greater|larger|overflow|not fit|not enough)[^.]{{0,90}}{_WINDOW}",
            rf"{_WINDOW}[^.]{{0,90}}(?:exceed|overflow|not enough)",
            r"(?:prompt|input)(?: context)?(?: token)?(?: length)?(?: is)? too long",
            r"string too long",
            r"length of tokens in the request is too long",
            r"input length \([\d,]+(?: tokens)?\) exceeds",  # SGLang
            r"prompt exceeds max length",  # Z.ai
            r"tokens in request more than max tokens allowed",
            r"prompt tokens \([\d,]+\) exceed",
            r"prompt length \([\d.,]+\).{0,40}not exceed max_num_tokens",  # TensorRT-LLM
            r"request contains [\d,]+ tokens, which exceeds the limit(?!.{0,30} per )",
            r"`inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than",  # TGI
            r"(?:input|prompt) token count\b.{0,40}(?:exceeds|but model only)",  # Gemini
            r"input tokens exceed",  # gpt-5
            r"too many tokens: total number of tokens in the prompt",  # Cohere
            r"reduce the length of the (?:messages|input|prompt)",
            r"keep the first \d+ tokens|tokens to keep from the initial prompt",  # LM Studio
            r"too large for model with",  # Mistral
            r"exceeded model token limit",  # Kimi
            r"range of input length should be",  # Qwen
        )
    ),
    re.IGNORECASE,
)
_PROMPT_TOKENS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"prompt has ([\d,]+)",
        r"prompt (?:tokens|length) \(([\d,]+)",
        r"\(([\d,]+) in your prompt",
        r"(?:contains|passed|has) (?:at least |about )?([\d,]+) (?:input )?tokens",
        r"\((?:about )?([\d,]+) (?:in the messages|of text input)",
        r": ([\d,]+) tokens from the input",  # SGLang
        r"resulted in ([\d,]+) tokens",
        r"input length \(?([\d,]+)",
        r"given: ([\d,]+)(?: `inputs`|\s*$)",  # TGI
        r"token count (?:of |is )?\(?([\d,]+)",
        r"(?:request|input|requested tokens) \(([\d,]+)(?: tokens)?\)",
        r"too long: ([\d,]+)",
        r"keep the first ([\d,]+) tokens",
        r"n_keep: ([\d,]+)",
        r"context limit: ([\d,]+) \+",
        r"prompt \(length ([\d,]+)\)",
        r"\(requested: ([\d,]+)\)",
        r"received ([\d,]+)",
        r"current length is ([\d,]+)",
    )
]

# -- what the model wrote --------------------------------------------------------------------------


UNREADABLE_CODES = (
    *("json_validate_failed", "tool_use_failed", "output_parse_failed"),  # Groq
    "content_filter",  # Azure, of a prompt; it tells a filtered reply as its finish_reason
)


def is_unreadable(complaint: Complaint) -> bool:
    """Whether a server could make nothing of what its model wrote, or will not say: that is an odd
    reply, though it is told as an error."""
    if complaint.code in UNREADABLE_CODES:
        return True
    return _UNREADABLE.search(all_words(complaint)) is not None


def was_cut(complaint: Complaint) -> bool:
    """Whether that was because it ended at `max_tokens`."""
    return _CUT.search(complaint.message) is not None


_CUT = re.compile(
    r"could not finish the message because max_tokens or model output limit was reached"  # OpenAI
    r"|max completion tokens reached before generating a valid document",  # Groq
    re.IGNORECASE,
)
_UNREADABLE = re.compile(
    # Of harmony's parser, in vLLM and SGLang.
    r"unexpected token \d+ while expecting start token"
    r"|unexpected tokens remaining in message header"
    rf"|{_CUT.pattern}",
    re.IGNORECASE,
)

# -- what else is minded ---------------------------------------------------------------------------


def minds_system(refusal: str) -> bool:
    """Whether a refusal means that the chat template takes no system message."""
    return _NO_SYSTEM.search(refusal) is not None


def minds_turns(refusal: str) -> bool:
    """Whether a refusal means that user and assistant have to take turns."""
    return _TURNS.search(refusal) is not None


def minds_empty(refusal: str) -> bool:
    """Whether a refusal means that a message of the assistant may not be empty."""
    return _EMPTY.search(refusal) is not None


_NO_SYSTEM = re.compile(
    r"system (role|message)|conversation roles must alternate"
    r"|not support '(?:system|developer)'|developer instruction is not enabled",
    re.IGNORECASE,
)
_TURNS = re.compile(
    r"roles? must alternate|(?:consecutive|successive) (?:user|assistant)", re.IGNORECASE
)
_EMPTY = re.compile(
    r"must have either content or tool_calls|must have non-?empty content"
    r"|(?:cannot|must not|should not) be empty|content is empty|non-?empty content"
    r"|content or tool_calls must be set|at least one content element",
    re.IGNORECASE,
)

PARAMETERS = frozenset(
    {
        "chat_template_kwargs",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "n",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "top_logprobs",
        "top_p",
    }
)
"""What a body of ours may hold and a server may refuse."""


def refused_parameter(complaint: Complaint) -> str | None:
    """What of a request a server does not take, by its name in the body; None: it is not that."""
    named = re.split(r"[.\[]", complaint.param.removeprefix("body."))[0]
    if named == "response_format":  # a schema is minded with any code
        return named
    if named in PARAMETERS and {complaint.code, complaint.kind} & _PARAMETER_CODES:
        return named
    if _NO_FORMAT.search(complaint.message):
        return "response_format"
    for pattern in _REFUSED:
        for found in pattern.finditer(complaint.message):
            name = _ALSO.get(found[1], found[1])
            if name in PARAMETERS:
                return name
    return None


_ALSO = {"max_new_tokens": "max_tokens"}  # TGI's own name


_PARAMETER_CODES = {
    "unsupported_parameter",
    "unsupported_value",
    "unknown_parameter",
    "extra_forbidden",
    "invalid_value",
}
_NO_FORMAT = re.compile(
    r"response[_ ]format.{0,60}(?:not support|unsupported|unavailable)"
    r"|not support.{0,20}(?:response[_ ]format|json_schema|structured outputs?)"
    # OpenAI; Fireworks, Cerebras; llama.cpp; TGI; Gemini
    r"|invalid schema for|json schema not supported|unsupported json schema"
    r"|schema conversion failed|parse grammar|grammar is not valid|specified schema produces",
    re.IGNORECASE,
)
_NAME = r"['\"`]?\b(\w{1,40})\b['\"`]?"
_REFUSED = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"unsupported (?:parameters?|values?|arguments?):? {_NAME}",  # OpenAI
        r"(?:unrecognized|unknown|unexpected)[\w ]{0,60}?"
        rf"(?:arguments?|parameters?|names?|fields?)(?: supplied)?:? {_NAME}",  # OpenAI, Gemini
        rf"(?:property|parameter|argument|field) {_NAME} (?:is|are) (?:not supported|unsupported)",
        rf"{_NAME} (?:is|are) (?:not supported|unsupported|deprecated|not permitted|not allowed)",
        rf"{_NAME}: extra inputs are not permitted",  # pydantic
        rf"does not support (?:the )?(?:parameter )?{_NAME}",
        rf"{_NAME} cannot both be specified",  # Anthropic, of temperature and top_p
        rf"{_NAME} is too large",
        # TGI, whose top_p is below 1; DeepSeek and others
        rf"{_NAME} must be (?:[<>]|strictly|less than|at most|between)",
        rf"{_NAME} may only be set to",  # Anthropic, of a model that thinks
        rf"{_NAME}: [\d,]+ >",  # Anthropic, of max_tokens
        rf"range of {_NAME} should be",  # Qwen
        rf"invalid {_NAME}(?: value|: only)",
    )
]
