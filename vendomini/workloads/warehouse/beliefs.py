"""The question about storage and budget: it branches off the conversation and leaves no trace.

It is asked beside a morning's request, as one more paragraph of the same message, so that a
server finds all but this paragraph in its prefix cache. Its answer is recorded and nothing else:
one that cannot be read is counted, and not asked again.
"""

from dataclasses import replace

import msgspec

from vendomini.chat import ChatRequest, Message, Reply, ReplyFormat
from vendomini.workloads.warehouse.agent import Believed
from vendomini.workloads.warehouse.reading import read_numbers
from vendomini.workloads.warehouse.reply_schema import LARGEST

KEYS = ("storage", "budget")
QUESTION = (
    "Before you act today: as far as you know, how many units are in storage in all, and what is "
    "the budget, right now? Do not call a tool. Reply with exactly one JSON object and nothing "
    'else: {"storage": <number>, "budget": <number>}'
)
QUESTION_TOKENS = 100  # that it takes at most, by the tokenizers of common models

_NUMBER = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
ANSWER = ReplyFormat(
    kind="schema",
    json_schema=msgspec.json.encode(
        {
            "type": "object",
            "properties": dict.fromkeys(KEYS, _NUMBER),
            "required": KEYS,
            "additionalProperties": False,
        }
    ).decode(),
)


def is_asked(day: int, every: int | None) -> bool:
    """Whether the question belongs to this day; `every`: days between two, None: never."""
    return every is not None and day > 0 and day % every == 0


def question_beside(request: ChatRequest) -> ChatRequest:
    """The question as a branch of a morning's request, drawn and constrained as that is.

    Its answer may be shorter by what the question takes, though by no more than half: so it
    fits wherever that fits.
    """
    *earlier, morning = request.messages
    most = request.sampling.max_tokens
    return replace(
        request,
        messages=(*earlier, Message(role="user", content=f"{morning.content}\n\n{QUESTION}")),
        sampling=replace(request.sampling, max_tokens=max(most - QUESTION_TOKENS, (most + 1) // 2)),
        reply_format=request.reply_format if request.reply_format.kind == "text" else ANSWER,
    )


def read_belief(reply: Reply) -> Believed:
    """What was answered; nothing of it if it is not a number for each of the two."""
    choice = reply.choices[0]
    said = None if choice.finish_reason == "context" else read_numbers(choice.text, KEYS)
    return Believed() if said is None else Believed(**said)
