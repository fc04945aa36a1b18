"""Two hundred odd replies, made from a good one by chance: none of them fails a run."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines_client.fake import Said, says
from tests.engines_client.phase import CALL, completion, play
from vendomini.phase import settings_of
from vendomini.workloads.warehouse.reading import FormatFailure, Reader
from vendomini.workloads.warehouse.settings import WarehouseSettings

ODD = 200
RUNS, STEPS = 8, 40

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**9,
    10**30,
    float("nan"),
    "",
    "stop",
    "length",
    "content_filter",
    "SAFETY",
    "error",
    "abort",
    CALL,
    CALL[:20],
    CALL + CALL,
    f"<think>hm</think>{CALL}",
    "<think>hm",
    "<|channel|>analysis<|message|>hm<|end|>",
    "analysisThe",
    "\ud83d",
    "\udc00 and \ud800",
    "\x00\x1b[31m",
    "word " * 20_000,
    "[" * 500,
    "{" * 500,
    [],
    {},
    [None],
    [CALL],
    ["a", 1, None, {"text": "b"}],
    [{"type": "text", "text": CALL}],
    [{"type": "text"}],
    {"text": CALL},
    {"content": {"content": {"content": "deep"}}},
    [{"function": {"name": 7, "arguments": {"a": [1]}}}],
    [{"function": None}, "call"],
]
NAMES = [
    *("content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call"),
    *("text", "delta", "index", "finish_reason", "logprobs", "usage", "choices", "message"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within, but the outermost."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def changed(chance: random.Random) -> dict[str, Any]:
    """A good reply with one to three changes: a field dropped, replaced, moved, nested, added."""
    answer = completion()
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(list(places(answer)) or [("choices",)])
        holder: Any = answer
        for key in path[:-1]:
            holder = holder[key]
        value = copy.deepcopy(chance.choice(VALUES))
        match chance.randrange(5):
            case 0 if path[-1] in holder or isinstance(holder, list):
                del holder[path[-1]]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(NAMES)] = value
            case 2:
                for _ in range(chance.choice([1, 2, 60])):
                    value = [value] if chance.random() < 0.5 else {"content": value}
                holder[path[-1]] = value
            case 3 if isinstance(holder, list):
                holder.append(value)
            case _:
                holder[path[-1]] = value
    return answer


def written(answer: dict[str, Any], chance: random.Random) -> Said:
    """As a server may write it: with characters escaped or not, and what is no JSON by the book."""
    escaped = chance.random() < 0.7
    text = json.dumps(answer, ensure_ascii=escaped)
    blank = chance.choice(["", "", "\n", "\ufeff"])
    return Said(body=(blank + text).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(("reply_format", "seed"), [("text", 17), ("schema", 18)])
def test_no_run_fails_for_the_form_of_a_reply(tmp_path: Path, reply_format: str, seed: int) -> None:
    chance = random.Random(seed)
    given = {"odd": 0, "good": 0}

    def answer(body: Any) -> Said:
        if given["good"] and chance.random() < 0.6:
            given["odd"] += 1
            return written(changed(chance), chance)
        given["good"] += 1
        return says(completion())

    played = play(
        tmp_path,
        answer,
        runs=RUNS,
        steps=STEPS,
        overrides=[f"agent.interface.reply_format={reply_format}"],
    )
    assert played.errors == []
    assert (played.ended.runs, played.ended.exit_status) == (RUNS, 0)
    assert given["odd"] >= ODD
    assert len(played.replies) == given["odd"] + given["good"]
    # Each that could not be read was asked again, or was the last of its day.
    settings = settings_of(played.experiment.runs()[0].settings, WarehouseSettings)
    reader = Reader(settings.agent.interface)
    unreadable = [
        reply
        for reply in played.replies
        if isinstance(
            reader.read(reply.choices[0].text, reply.choices[0].finish_reason), FormatFailure
        )
    ]
    assert len(unreadable) == played.total("re_asks") + played.total("format_failures")
    assert len(unreadable) > ODD / 4
    assert played.total("format_failures") > 0
