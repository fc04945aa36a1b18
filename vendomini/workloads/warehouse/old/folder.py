"""One folder of the predecessor's results, read as far as it can be."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vendomini.errors import StoreError
from vendomini.store.disk import Disk
from vendomini.store.trying import explained

FOLDERS = ("run_*", "test_*")
STEPS, SUMMARY = "steps.jsonl", "summary.json"
MOST_STEPS = 2**31

Tree: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """One line of a `steps.jsonl`.

    `before` and `after` are observations, empty if there is none. `by_parser`: the reply did
    not name the action that was taken; None: it was not logged.
    """

    line: int  # from 1
    step: int  # as logged
    tool: str | None
    args: Any
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    crashed: bool
    crash_type: str | None
    by_parser: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder as it was found. `summary` is None if there is none that can be read."""

    id: str
    steps: tuple[StepLine, ...]
    unreadable_lines: int
    summary: Tree | None
    is_summary_unreadable: bool
    runs: int  # that wrote into it, at least
    first_step: int  # what its first step was numbered: 0, or 1 if the file says so

    @property
    def is_merged(self) -> bool:
        """Whether several runs wrote into it, so that nothing in it is surely of one of them."""
        return self.runs > 1

    @property
    def length(self) -> int:
        """Steps played, by the last that can be read; for a folder of one run."""
        return self.steps[-1].step - self.first_step + 1 if self.steps else 0

    @property
    def onset(self) -> int | None:
        """The first step that says a crash was seen; None if there is none, or several runs."""
        if self.is_merged:
            return None
        return next((s.step - self.first_step for s in self.steps if s.crashed), None)

    @property
    def replies(self) -> list[bool]:
        """For each reply that was logged, whether the parser chose the action."""
        return [step.by_parser for step in self.steps if step.by_parser is not None]


def result_folders(folder: Path) -> list[Path]:
    """The folders of results in `folder` or its `logs`, or `folder` itself, by name.

    Raises `StoreError` if there are none, or nothing is in any of them.
    """
    if not folder.is_dir():
        raise StoreError(
            f"there is no folder `{folder}`", hint="name the one that holds `logs/run_*/`"
        )
    for place in (folder / "logs", folder):
        with explained("read", place):
            found = [path for name in FOLDERS for path in place.glob(name) if path.is_dir()]
            if any(map(_holds_something, found)):
                return sorted(found, key=lambda path: path.name)
        if found:
            raise StoreError(
                f"all folders of results in `{place}` are empty: {len(found)}",
                hint="those runs ended before their first step; name a folder with `steps.jsonl` "
                "in its `run_*/`",
            )
    if _holds_something(folder):
        return [folder]
    raise StoreError(
        f"`{folder}` holds no results of the predecessor",
        hint="name the folder that holds `logs/run_*/`, or `run_*/` itself",
    )


def read_folder(path: Path, disk: Disk) -> Folder:
    """Raises `StoreError` if a file in it may not be read."""
    steps: list[StepLine] = []
    unreadable = 0
    for line, content in enumerate((disk.read(path / STEPS) or b"").split(b"\n"), start=1):
        if content.strip():
            step = _step(content, line)
            unreadable += step is None
            steps += [] if step is None else [step]
    content = disk.read(path / SUMMARY) or b""
    summary = _decoded(content)
    starts_at_1 = bool(steps) and not unreadable and steps[0].step == 1
    return Folder(
        id=text(path.resolve().name.removeprefix("run_")),
        steps=tuple(steps),
        unreadable_lines=unreadable,
        summary=summary if isinstance(summary, dict) else None,
        is_summary_unreadable=bool(content) and not isinstance(summary, dict),
        runs=_runs([step.step for step in steps]) or int(bool(content) or unreadable > 0),
        first_step=int(starts_at_1),
    )


def named_tool(reply: str) -> str | None:
    """The tool that a reply names in its last ``ACTION:`` line, read as the predecessor did.

    Where the action that was taken is another, its parser chose it.
    """
    named = None
    for line in reply.splitlines():
        header, colon, rest = line.strip().partition(":")
        if colon and header == "ACTION":
            named = rest.split("#")[0].strip().strip("\"'").strip()
    return named


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: object) -> int | float | None:
    """The value if it is a number, else None; a boolean is none."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def text(name: str) -> str:
    """A name on disk, which may be no text, as a table can hold it."""
    return name.encode(errors="replace").decode()


def _holds_something(folder: Path) -> bool:
    return any(
        path.is_file() and path.stat().st_size for path in (folder / STEPS, folder / SUMMARY)
    )


def _runs(numbers: list[int]) -> int:
    """How many runs numbered these steps, at least: each numbers its own upwards, once each."""
    most = max(Counter(numbers).values(), default=0)
    goes_back = any(later < sooner for sooner, later in itertools.pairwise(numbers))
    return max(most, 2 if goes_back else 0)


def _step(content: bytes, line: int) -> StepLine | None:
    """None: torn, or no step."""
    logged = mapping(_decoded(content))
    step = logged.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < MOST_STEPS:
        return None
    action = mapping(logged.get("action"))
    tool, crash = action.get("tool"), logged.get("crash_type")
    reply = mapping(logged.get("prediction")).get("scratchpad_raw")
    after = logged.get("result")
    if isinstance(after, list):  # older files: the observation, and whether the run is over
        after = after[0] if after else None
    return StepLine(
        line=line,
        step=step,
        tool=tool if isinstance(tool, str) else None,
        args=action.get("args"),
        before=mapping(logged.get("observation")),
        after=mapping(after),
        crashed=logged.get("crash_detected") is True,
        crash_type=crash if isinstance(crash, str) else None,
        by_parser=named_tool(reply) != tool if isinstance(reply, str) else None,
    )


def _decoded(content: bytes) -> Any:
    """What a JSON text says, with nothing in it that a table could not hold; None: it is none.

    NaN, which Python's JSON has, is null.
    """
    try:
        value = json.loads(
            content.decode(errors="replace"),
            parse_int=_whole,
            parse_float=_fraction,
            parse_constant=lambda name: None,
        )
        if b"\\ud" in content.lower():  # perhaps half of a letter
            value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return value


def _whole(digits: str) -> int | float | None:
    if len(digits) <= 20 and -(2**63) <= int(digits) < 2**63:
        return int(digits)
    return _fraction(digits)


def _fraction(digits: str) -> float | None:
    return value if math.isfinite(value := float(digits)) else None
