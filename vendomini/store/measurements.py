"""Speeds seen: `measurements.jsonl` of each experiment, which later plans use."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from vendomini.errors import DiskError
from vendomini.store.disk import Disk
from vendomini.store.records import UNREADABLE, encode
from vendomini.store.trying import explained

FILE = "measurements.jsonl"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker's engine did in its life.

    `gpu` is the device's name as its driver says it. `concurrency` is the mean of requests under
    way while there were any, `context` the mean prompt of a request. Tokens are of all requests;
    `tokens_cached` of the `tokens_in` were in the prefix cache. `seconds` counts only time in
    which requests were under way, `startup_s` the engine's start. `ended` is UTC, ISO 8601.
    """

    model: str
    revision: str | None = None  # None: the default branch
    backend: str
    dtype: str | None = None  # None: the engine's choice
    quantization: str | None = None  # None: as the checkpoint is
    gpu: str | None  # None: no GPU
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    concurrency: float
    context: float
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    seconds: float
    startup_s: float | None = None  # None: it was not measured
    requests: int
    ended: str = ""


def add_measurement(folder: Path, measured: Measured) -> None:
    """Append a line to the experiment's file. Any number of workers may at the same time.

    One `write` of one short line: on file systems that do not append in one piece, a line may be
    torn, which costs that line. Raises `StoreError` when the disk is full.
    """
    path = folder / FILE
    with explained("write", path):
        # A pipe in its place would be waited for without end.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
        try:
            # The line break comes first as well: what a writer that died left half is closed by it.
            view = memoryview(b"\n" + encode(measured) + b"\n")
            while view:
                view = view[os.write(handle, view) :]
        finally:
            os.close(handle)


def read_measurements(root: Path) -> tuple[Measured, ...]:
    """Those of all experiments in the folder `root`, by experiment and in the order of writing.

    Lines that are torn, or of a VendoMini that writes others, and files that cannot be read are
    passed over: a plan that knows less is still a plan.
    """
    disk = Disk()
    found = []
    for name in sorted(disk.names(root)):
        content = None
        with suppress(DiskError):
            content = disk.read(root / name / FILE) if (root / name).is_dir() else None
        for line in (content or b"").splitlines():
            if not line:
                continue
            try:
                found.append(_MEASURED.decode(line))
            except UNREADABLE:
                continue
    return tuple(found)


_MEASURED = msgspec.json.Decoder(Measured)
