"""The step logs, read: where each run's steps are, and whether they are all there. Pure."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from vendomini.store.records import UNREADABLE


@dataclass(slots=True)
class StepLines:
    """Where in a log the steps of a run are, in bytes, from its last beginning on.

    `is_broken`: there is one that does not follow on the one before it.
    """

    starts: "array[int]" = field(default_factory=lambda: array("Q"))
    sizes: "array[int]" = field(default_factory=lambda: array("I"))
    is_broken: bool = False

    @property
    def count(self) -> int:
        return len(self.starts)


def step_lines(
    blocks: Iterable[bytes], *, is_wanted: Callable[[str], bool] = lambda run: True
) -> dict[str, StepLines]:
    """The steps that a log has, by run. `blocks` are its content, cut anywhere.

    A worker may have begun a run more than once: its last beginning counts. A line that is no step
    of JSON, as a crash of the machine or somebody's editor leaves them, is none.
    """
    found: dict[str, StepLines] = {}
    decode = _STEP.decode
    at, rest = 0, b""  # what is not read yet, and where it begins
    for block in blocks:
        content = rest + block
        start = 0
        while (end := content.find(b"\n", start)) >= 0:
            line = content[start:end]
            begin, start = at + start, end + 1
            if line.startswith(b"\0"):  # blocks that never reached the disk, and a line after them
                line = line.lstrip(b"\0")
                begin = at + end - len(line)
            try:
                step = decode(line)
                if not line.isascii():
                    str(line, "utf-8")  # what is not asked for is passed over unread
            except UNREADABLE:
                continue
            if not is_wanted(step.run):
                continue
            lines = found.get(step.run)
            if lines is None or step.step == 0:
                lines = found[step.run] = StepLines()
            lines.is_broken |= step.step != lines.count
            lines.starts.append(begin)
            lines.sizes.append(len(line))
        at, rest = at + start, content[start:]
        if not rest.strip(b"\0"):
            at, rest = at + len(rest), b""
    return found


class _Step(msgspec.Struct):
    run: str
    step: int


_STEP = msgspec.json.Decoder(_Step)
