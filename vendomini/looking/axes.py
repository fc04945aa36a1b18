"""The self-test of a phase's axes, with its results kept.

A result is kept by what decides it: the settings tried, the workload's version, and the source
of the workload and of the test, so that an edit of either tries anew. It lies below
``$XDG_CACHE_HOME`` (``~/.cache``) in ``vendomini/selftest``, and may be deleted at any time.
"""

import hashlib
import inspect
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vendomini.phase import Run
from vendomini.prepare import selftest
from vendomini.prepare.selftest import (
    SelfTest,
    self_test,
    tried_axes,
    what_is_tried,
)
from vendomini.workloads.registry import module_of
from vendomini.workloads.workload import Workload

SILENT_S = 1.0
"""A test that takes longer says what is going on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A self-test, and what it took: `seconds` of now, `cached` if its result was there."""

    test: SelfTest
    seconds: float
    cached: bool


def check_axes(
    runs: Sequence[Run], workload: Workload, *, meanwhile: Callable[[str], None] | None = None
) -> Checked:
    """Try the axes of a phase's runs, or take what is kept of having tried just these.

    `meanwhile` is told, once, why nothing is to be seen for a while; None: nobody watches.
    """
    started = time.perf_counter()
    if not tried_axes(runs, workload):
        return Checked(test=SelfTest(axes=(), trials=0, refuses=False), seconds=0.0, cached=False)
    file = _file(runs, workload)
    test = None if file is None else _kept(file)
    cached = test is not None
    if test is None:
        test = self_test(runs, workload, tick=_Patience(started, meanwhile))
        if file is not None:
            _keep(file, test)
    return Checked(test=test, seconds=time.perf_counter() - started, cached=cached)


# -- private -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Patience:
    """Says once why nothing is to be seen."""

    started: float
    meanwhile: Callable[[str], None] | None
    has_spoken: bool = False

    def __call__(self) -> None:
        late = time.perf_counter() - self.started > SILENT_S
        if late and not self.has_spoken and self.meanwhile is not None:
            self.meanwhile("trying what each axis of the grid changes ...")
            self.has_spoken = True


def _file(runs: Sequence[Run], workload: Workload) -> Path | None:
    """Where the result is kept; None: there is no place to keep anything."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        home = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
        key = hashlib.sha256(what_is_tried(runs, workload).encode())
        for source in _sources(workload):
            key.update(source.name.encode() + source.read_bytes())
    except (OSError, RuntimeError):  # no home, no source to be read
        return None
    return home / "vendomini" / "selftest" / f"{key.hexdigest()[:32]}.json"


def _sources(workload: Workload) -> list[Path]:
    """The test's own, and the workload's: its module, or the whole of somebody's package."""
    file = Path(inspect.getfile(type(workload)))
    package = module_of(workload).split(".")[:-1]
    sources = [file]
    if package:
        ours = package[0] == "vendomini"  # of ours the workload's own folder is enough
        sources = sorted(file.parents[0 if ours else len(package) - 1].rglob("*.py"))
    return [Path(inspect.getfile(selftest)), *sources]


def _kept(file: Path) -> SelfTest | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=SelfTest)
    except (OSError, msgspec.DecodeError):
        return None


def _keep(file: Path, test: SelfTest) -> None:
    """As well as it can be done: the next self-test would only take longer."""
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(msgspec.json.encode(test))
        beside.replace(file)
    except OSError:
        return
