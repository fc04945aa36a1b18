"""What is read of a real model's replies: ``python -m bench.reading [--json]``, in seconds.

`tests/data/replies` has what SmolLM2-135M-Instruct-Q4_1 answered in the warehouse on vLLM's CPU
build, under a schema and as text, with prediction cards and without. As text it babbles: more of it
was asked for after days with calls, bare, in fences or in prose. And it has those replies with
thoughts before them, in the words that other kinds of model have.

Each is read as a run reads it: the server's answer to a reply, and that to a call or a format
failure. For each form: the share that is read, the share after which the agent is asked again, and
the share with which its day is lost, since it has been asked again as often as it may. `as bare` is
for how many replies with thoughts the same is read as without.

``--write`` writes the verdicts of the corpus anew, for somebody to read the difference.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vendomini.chat import TEXT, ChatRequest, Message, ReplyFormat
from vendomini.engines.protocol import chat_reply
from vendomini.errors import EngineError
from vendomini.workloads.warehouse.llm import MOST_RE_ASKS
from vendomini.workloads.warehouse.reading import FormatFailure, Reader
from vendomini.workloads.warehouse.settings import InterfaceSettings

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "data" / "replies"
WINDOW = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A server's answer. `asked_before` is how often the agent had been asked again that day.

    `bare` is the number of the reply that its thoughts were put before; None: it is as it was said.
    """

    number: int
    form: str
    cards: bool
    schema: bool
    asked_before: int
    answer: dict[str, Any]
    bare: int | None
    verdict: dict[str, Any]


def corpus(folder: Path = FOLDER) -> list[Recorded]:
    """All of it, by number."""
    lines = [
        Recorded(**json.loads(line))
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return sorted(lines, key=lambda each: each.number)


def verdict_of(recorded: Recorded) -> dict[str, Any]:
    """What is read of it: a call, a format failure and why, or the engine's error."""
    interface = InterfaceSettings(prediction_mode="required" if recorded.cards else "none")
    try:
        reply = chat_reply(
            json.dumps(recorded.answer).encode(),
            _request(recorded),
            dialect="vllm",
            window=WINDOW,
            seconds=1.0,
        )
    except EngineError as error:
        return {"error": str(error)}
    (choice,) = reply.choices
    found = Reader(interface).read(choice.text, choice.finish_reason)
    if isinstance(found, FormatFailure):
        return {"failure": found.why, "thoughts": choice.reasoning}
    return {
        "call": found.tool,
        "arguments": found.arguments,
        "card": found.card is not None,
        "thoughts": choice.reasoning,
    }


def without_thoughts(verdict: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in verdict.items() if name != "thoughts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Of the replies of one form, in shares of 1. `as_bare` None: they have no thoughts."""

    form: str
    replies: int
    read: float
    asked_again: float
    failed: float
    as_bare: float | None


def shares(replies: Sequence[Recorded]) -> Iterator[Share]:
    """One of each form, in the order of the corpus."""
    verdicts = {each.number: verdict_of(each) for each in replies}
    for form in dict.fromkeys(each.form for each in replies):
        own = [each for each in replies if each.form == form]
        unread = [each for each in own if "call" not in verdicts[each.number]]
        failed = [each for each in unread if each.asked_before >= MOST_RE_ASKS]
        thinking = [each for each in own if each.bare is not None]
        alike = [
            each
            for each in thinking
            if without_thoughts(verdicts[each.number]) == without_thoughts(verdicts[each.bare or 0])
        ]
        yield Share(
            form=form,
            replies=len(own),
            read=1 - len(unread) / len(own),
            asked_again=(len(unread) - len(failed)) / len(own),
            failed=len(failed) / len(own),
            as_bare=len(alike) / len(thinking) if thinking else None,
        )


# -- private -------------------------------------------------------------------------------


def _request(recorded: Recorded) -> ChatRequest:
    """One with what decides how its answer is taken."""
    schema = ReplyFormat(kind="schema", json_schema='{"type": "object"}')
    return ChatRequest(
        messages=(Message(role="user", content="Day 0."),),
        reply_format=schema if recorded.schema else TEXT,
    )


def _write(replies: Sequence[Recorded]) -> None:
    for file in sorted(FOLDER.glob("*.jsonl")):
        lines = []
        for line in file.read_text(encoding="utf-8").splitlines():
            said = json.loads(line)
            said["verdict"] = verdict_of(Recorded(**said))
            lines.append(json.dumps(said, ensure_ascii=False, separators=(",", ":")))
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Print the table, or what a script would parse."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="the verdicts of the corpus, anew")
    asked = parser.parse_args()
    replies = corpus()
    if asked.write:
        _write(replies)
        return
    found = list(shares(replies))
    if asked.json:
        rows = [{name: getattr(row, name) for name in row.__slots__} for row in found]
        print(json.dumps(rows, indent=1))
        return
    print(f"{'form':<38} replies   read  asked again  failed  as bare")
    for row in found:
        as_bare = "-" if row.as_bare is None else f"{row.as_bare:.0%}"
        print(
            f"{row.form:<38} {row.replies:7} {row.read:6.0%} {row.asked_again:12.0%} "
            f"{row.failed:7.0%} {as_bare:>8}"
        )


if __name__ == "__main__":
    main()
