"""What playing a phase writes, and whether there is room for it: pure."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from vendomini.prepare.group import GroupPlan, Writes
from vendomini.store.disk import BLOCK_BYTES, size_in_words

# Counted in experiments that were played for it, 2026-11-29: names, and what a file system counts
# as files, which folders are and a further name of a file is not.
RUN = (2, 1)  # its claim, which is a link, and its result
WORKER = (6, 7)  # heartbeat, steps, submitit's four; the file that its claims are links to
ASKING = (2, 2)  # replies, and the engine's own log
GROUP = (4, 6)  # job.json, slurm.json, submitit's script, the pin; two folders
PHASE = (6, 16)  # marker, phase, runs, plan, measurements, lock; ten folders
RUN_BYTES = BLOCK_BYTES + 1700  # a result is 2.9 kB; its line in runs.jsonl 1.65 kB


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What there is room for: `whose` is ``the file system of `/scratch` `` or a quota.

    None: it sets no limit, or does not say.
    """

    whose: str
    bytes: int | None
    files: int | None


def writes_of(
    groups: Iterable[GroupPlan], *, done: AbstractSet[str] = frozenset(), folder: str | None = None
) -> Writes | None:
    """What the groups' runs that are not `done` write; None if there are none.

    Of a group that is done in part, its logs are taken to be as long for each run.
    """
    parts = [(1, PHASE)]  # how many of each
    runs = logged = 0
    for group in groups:
        left = sum(run not in done for run in group.run_ids)
        if left:
            workers = min(group.workers, left)
            parts += [(1, GROUP), (left, RUN), (workers, WORKER), (workers * group.asks, ASKING)]
            runs += left
            logged += group.log_bytes * left // len(group.run_ids)
    if not runs:
        return None
    files = sum(count * files for count, (_, files) in parts)
    return Writes(
        names=sum(count * names for count, (names, _) in parts),
        files=files,
        bytes=logged + runs * RUN_BYTES + (files - runs) * BLOCK_BYTES,
        folder=folder,
    )


def writes_in_words(writes: Writes) -> str:
    """``writes about 1,400 files and 0.42 GB into experiments/phase1``."""
    into = "" if writes.folder is None else f" into {writes.folder}"
    return f"writes about {_about(writes.names):,} files and {size_in_words(writes.bytes)}{into}"


def shortages(writes: Writes, rooms: Sequence[Room]) -> tuple[str, ...]:
    """Where there is less room than is needed: what is needed, what is there, what to do."""
    found = []
    for room in rooms:
        if room.bytes is not None and room.bytes < writes.bytes:
            found.append(
                _shortage(size_in_words(writes.bytes), size_in_words(room.bytes), room, writes)
            )
        if room.files is not None and room.files < writes.files:
            needed = f"{_about(writes.files):,} files"
            found.append(_shortage(needed, f"{room.files:,} files", room, writes))
    return tuple(found)


# -- private -------------------------------------------------------------------------------


def _shortage(needed: str, there: str, room: Room, writes: Writes) -> str:
    into = "" if writes.folder is None else f" into `{writes.folder}`"
    return (
        f"what is to be played writes about {needed}{into}, and {room.whose} has room for {there}: "
        "free some, choose another folder with --root, or play fewer runs"
    )


def _about(count: int) -> int:
    """Two digits of a number: the others would promise what an estimate does not hold."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return round(count / unit) * unit
