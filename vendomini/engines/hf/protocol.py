"""What is asked over HTTP, checked, and the bodies of replies, in vLLM's shapes."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from vendomini.engines.hf.sampling import Drawing, TokenScores

MOST_LOGPROBS = 20
"""As vLLM's default. More would be much data for little."""

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON has not; vLLM's."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "echo": (False,),
    "best_of": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "use_beam_search": (False,),
    "skip_special_tokens": (True,),
    "add_generation_prompt": (True,),
}
"""What this engine cannot do, with the values that ask for nothing."""

Count = Annotated[int, msgspec.Meta(ge=1)]
Logprobs = Annotated[int, msgspec.Meta(ge=0, le=MOST_LOGPROBS)]


class JsonSchema(msgspec.Struct, frozen=True):
    """A named schema of a reply."""

    schema: dict[str, Any]
    name: str = ""


class ResponseFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`json_schema` is there exactly when the type is."""

    type: Literal["text", "json_schema"]
    json_schema: JsonSchema | None = None


class Asked(msgspec.Struct, kw_only=True):
    """What chat and completions share."""

    model: str
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    max_tokens: Count | None = None
    stop: str | list[str] = []
    n: Count = 1
    seed: int | None = None
    logprob_token_ids: list[int] = []
    response_format: ResponseFormat = ResponseFormat(type="text")
    ignore_eos: bool = False
    user: str = ""


class Message(msgspec.Struct):
    """One turn. Other fields than these reach no template."""

    role: str
    content: str


class Chat(Asked, kw_only=True, forbid_unknown_fields=True):
    """Body of /v1/chat/completions."""

    messages: list[Message]
    logprobs: bool = False
    top_logprobs: Logprobs = 0
    chat_template_kwargs: dict[str, Any] = {}


class Completion(Asked, kw_only=True, forbid_unknown_fields=True):
    """Body of /v1/completions."""

    prompt: str | list[int]
    logprobs: Logprobs | None = None
    prompt_logprobs: Logprobs | None = None
    add_special_tokens: bool = True
    return_tokens_as_token_ids: bool = False


class Tokenize(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of /tokenize: a prompt or a conversation."""

    model: str = ""
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None  # None: True for a prompt, False for a conversation
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] = {}


class Refused(Exception):
    """A request that gets an HTTP error. `param` is what of it is to blame."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def body(self) -> dict[str, Any]:
        kinds = {400: "BadRequestError", 401: "Unauthorized", 404: "NotFoundError"}
        return {
            "error": {
                "message": str(self),
                "type": kinds.get(self.status, "InternalServerError"),
                "param": self.param,
                "code": self.status,
            }
        }


def read_body(body: bytes, shape: type[Any]) -> Any:
    """The body as `shape`. Raises `Refused` for what cannot be read, or asks for what this
    engine cannot do."""
    try:
        fields = msgspec.json.decode(body)
        if not isinstance(fields, dict):
            raise Refused("the body is no JSON object")
        known = {field.name for field in msgspec.structs.fields(shape)}
        kept = {}
        for name, value in fields.items():
            if value is None:
                continue
            if name in NEUTRAL and name not in known:
                if value not in NEUTRAL[name]:
                    raise Refused(f"the hf engine cannot do `{name}`: {value!r}", param=name)
                continue
            kept[name] = value
        return msgspec.convert(kept, shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"the body cannot be read: {error}") from error


TokenText = Callable[[Sequence[int]], str]


def chat_logprobs(
    entries: Sequence[TokenScores], text_of: TokenText, *, most: int | None
) -> dict[str, Any]:
    """As in a chat reply. As in vLLM, the token itself comes first among its alternatives, which
    are `most` with it (None: all there are)."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = _token_text(token, text_of)
        return {"token": text, "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(text.encode())}

    return {
        "content": [
            {
                **entry(scores.token, scores.logprob),
                "top_logprobs": [entry(*pair) for pair in _with_own(scores)[:most]],
            }
            for scores in entries
        ]
    }


def completion_logprobs(
    entries: Sequence[TokenScores], text_of: TokenText, *, by_id: bool = False
) -> dict[str, Any]:
    """As in a completion's reply. `by_id`: tokens are named by their ids, which all differ."""

    def name(token: int) -> str:
        return f"token_id:{token}" if by_id else _token_text(token, text_of)

    tokens = [name(scores.token) for scores in entries]
    offsets, reached = [], 0
    for token in tokens:
        offsets.append(reached)
        reached += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [max(scores.logprob, LEAST_LOGPROB) for scores in entries],
        "top_logprobs": [
            {name(token): max(logprob, LEAST_LOGPROB) for token, logprob in _with_own(scores)}
            for scores in entries
        ],
        "text_offset": offsets,
    }


def prompt_logprobs(entries: Sequence[TokenScores], text_of: TokenText) -> list[Any]:
    """As in a completion's reply: the first token has none."""
    positions: list[Any] = [None]
    for scores in entries:
        ranks = {token: place + 1 for place, (token, _) in enumerate(scores.others)}
        ranks[scores.token] = scores.rank
        positions.append(
            {
                str(token): {
                    "logprob": max(logprob, LEAST_LOGPROB),
                    "rank": ranks[token],
                    "decoded_token": _token_text(token, text_of),
                }
                for token, logprob in _with_own(scores)
            }
        )
    return positions


def usage(prompt_tokens: int, drawn: Sequence[Drawing]) -> dict[str, Any]:
    """Tokens in and out; of those in, how many had been read before any of these rows began."""
    out = sum(len(each.tokens) for each in drawn)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": out,
        "total_tokens": prompt_tokens + out,
        "prompt_tokens_details": {"cached_tokens": min(each.kept for each in drawn)},
    }


def _with_own(scores: TokenScores) -> list[tuple[int, float]]:
    others = [pair for pair in scores.others if pair[0] != scores.token]
    return [(scores.token, scores.logprob), *others]


def _token_text(token: int, text_of: TokenText) -> str:
    """Empty for a part of a character."""
    return text_of([token]).replace("\ufffd", "")
