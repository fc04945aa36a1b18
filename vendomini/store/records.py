"""What the files of an experiment hold, and how it is written: the store's vocabulary.

Everything is JSON by msgspec, which refuses what is not JSON; numbers that are not finite
are refused before they reach a file (`encode`).
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from vendomini.chat import Reply
from vendomini.errors import StoreError
from vendomini.serving import EngineSettings
from vendomini.store.process import Process

STORE_FORMAT = 1
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no record: no JSON, no text, or brackets without end."""

WorkerState: TypeAlias = Literal["starting", "working", "draining", "ended"]
ErrorKind: TypeAlias = Literal["engine", "replay", "bug"]


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """`experiment.json`: which layout this folder has."""

    store_format: int
    made_by: str


class ClaimRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`claims/<run>.<attempt>`: who plays this attempt."""

    incarnation: str


class SlurmPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where in Slurm a worker is. `job` is ``<id>`` or ``<array id>_<task>``, `user` a uid."""

    job: str
    restarts: int
    node: str
    user: int


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`workers/<incarnation>.json`: a heartbeat, and what the worker is.

    `beat` grows with each rewriting. `steps` and `runs` count since the worker started.
    """

    incarnation: str
    beat: int
    state: WorkerState
    process: Process
    submission: str
    group: str
    started: str  # UTC, ISO 8601
    dead_after_s: float = 180.0  # silence of so many seconds means that it is dead
    steps: int = 0
    runs: int = 0
    under_way: int = 0
    gpus: str | None = None
    slurm: SlurmPlace | None = None
    engine: Mapping[str, Any] | None = None  # the spec it was opened with; None: never asks
    provenance: Mapping[str, str] = {}
    problem: str | None = None  # why it ended early
    doing: str | None = None  # what it waits for before it works: its engine's own words
    engine_facts: Mapping[str, str] = {}  # what really serves: versions, device, attention


class ReadWorkerRecord(WorkerRecord, frozen=True, kw_only=True):
    """A heartbeat as it is read: workers of older versions say `live` for `under_way`."""

    live: int = 0

    def todays(self) -> WorkerRecord:
        known = {name: getattr(self, name) for name in WorkerRecord.__struct_fields__}
        return WorkerRecord(**{**known, "under_way": self.under_way or self.live})


class ReplyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `logs/<incarnation>.replies.jsonl`: the checkpoint."""

    run: str
    attempt: int
    ask: int
    position: int
    hash: str
    reply: Reply


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`errors/<run>.<attempt>.json`: how an attempt failed.

    `engine` errors are worth another try; a `replay` or a `bug` would only repeat itself.
    """

    run: str
    attempt: int
    incarnation: str
    submission: str
    kind: ErrorKind
    message: str
    hint: str = ""
    trace: str = ""


class AsideRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`archive/<n>/reason.json`, and `aside.json` while it is carried out: what was set aside, why.

    `last` has, by run, the number of its last attempt; `owners` the attempts that were set aside
    and who played them, latest first.
    """

    archive: int
    reason: str
    runs: Mapping[str, str]  # each with why
    pin: str | None = None  # the key of the group whose pin goes with them
    last: Mapping[str, int] = {}
    owners: Mapping[str, tuple[tuple[int, str], ...]] = {}
    keeps_replies: bool = False  # the next attempt goes on from the replies of these
    made: str = ""  # UTC, ISO 8601


class SlurmJobs(msgspec.Struct, frozen=True, kw_only=True):
    """`jobs/<n>/slurm.json`: what Slurm was handed for a group. `ids` are main ids of arrays."""

    group: str
    submission: str
    ids: tuple[str, ...]


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """`pins/<group>.json`: what gave a group its first reply, and so gives it every other.

    An engine that took the place of one that could not start is pinned before its first reply:
    `instead_of` is that one's backend, and `why` it could not. None: the engine is the planned one.
    """

    backend: str
    dtype: str | None
    quantization: str | None
    instead_of: str | None = None
    why: str | None = None

    def is_same(self, other: "Pin") -> bool:
        """Whether replies of the two may stand side by side."""
        mine = self.backend, self.dtype, self.quantization
        return mine == (other.backend, other.dtype, other.quantization)


def pin_of(
    settings: EngineSettings, *, instead_of: str | None = None, why: str | None = None
) -> Pin:
    """What an engine with these settings is pinned as."""
    return Pin(
        backend=settings.backend,
        dtype=settings.dtype,
        quantization=settings.quantization,
        instead_of=instead_of,
        why=why,
    )


def describe(pin: Pin) -> str:
    """For messages: ``vllm (dtype bfloat16)``."""
    parts = [f"dtype {pin.dtype}" if pin.dtype else "", pin.quantization or ""]
    inside = ", ".join(part for part in parts if part)
    said = f"{pin.backend} ({inside})" if inside else pin.backend
    return said if pin.instead_of is None else f"{said} in place of {pin.instead_of}"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """How a run was played. Never compared: two equal runs may differ in all of it."""

    attempt: int
    incarnation: str
    submission: str
    backend: str | None  # None: the run never asked
    node: str
    job: str | None
    seconds: float  # wall time of the attempt that finished
    replies: int
    replayed: int  # of them, how many came from the log
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    usd: float | None = None  # what a provider asked for its replies; None: nobody was billed
    steps: int | None = None  # how many it logged; None: a version that did not say
    attention: str | None = None  # how the engine computes it, where that is known
    fell_back_from: str | None = None  # the backend in whose place it was served; None: none's
    fell_back_why: str | None = None  # why that one could not start
    version: str | None = None  # VendoMini's; None, as the next two: one that did not say
    dtype: str | None = None  # in which the engine computed, where it or the phase says so
    quantization: str | None = None


class ResultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`results/<run>.json`: a finished run. Its existence is what `done` means."""

    run: str
    outcome: msgspec.Raw
    served: Served


_ENCODER = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """JSON. Raises `StoreError` for a number that is not finite.

    msgspec writes NaN and infinity as null, so a null is looked into before it is believed.
    """
    content = _ENCODER.encode(value)
    if b"null" in content:
        _refuse_non_finite(value)
    return content


def _refuse_non_finite(value: Any) -> None:
    plain = value if isinstance(value, float) else msgspec.to_builtins(value, enc_hook=_as_checked)
    waiting: list[Any] = [plain]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise StoreError(
                f"`{item}` is no number that a record may hold", hint="this is a bug: report it"
            )
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)


def _as_checked(value: Any) -> None:
    """An outcome that is JSON text already was looked into when it was encoded."""
    if not isinstance(value, msgspec.Raw):
        raise TypeError(f"`{type(value).__name__}` is nothing that JSON can hold")
