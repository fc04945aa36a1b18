"""Power cuts: what is on a disk at one moment, while a phase is played on it.

The experiment is on an ext4 in an image file, through a loop device. What ext4 has handed to its
device is in the image file; what the kernel still holds dirty is not: a copy of the file is what a
power cut leaves. Nothing is synchronised before. (Kinder than some disks: one with a cache of its
own may lose what it was handed and not told to flush.)

A copy takes time in which writes go on, and so would be of no moment at all. Device-mapper could
suspend the device; a kernel need not have it. Here the image lies on an ext4 of its own, in
another image, which is frozen (FIFREEZE) while the inner image is copied: the inner file system's
writes wait in its loop device, and nothing of it is flushed. Freezing takes some 10 ms.

One phase is played, and cut at many moments: each copy is a power cut of its own, from which the
phase is gone on with after all players have ended. The play that was copied goes on to its end and
is the undisturbed one. Needs root, losetup, mkfs.ext4, mount and fsfreeze.
"""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self

from bench.chaos.injected import Faults
from bench.chaos.playing import (
    Kind,
    Phase,
    Program,
    last_line_of,
    run_command,
    tracebacks_in,
)
from bench.chaos.suffering import finish, write_shim
from bench.chaos.verdict import compare, read, short_now

NEEDED = ("losetup", "mkfs.ext4", "mount", "umount", "fsfreeze", "e2fsck")
WORKERS = 2
INNER_MIB = 1024
OUTER_MIB = 1400
FOLDER = Path("/var/tmp")
CUTS: dict[str, tuple[float, int]] = {"short": (25.0, 10), "long": (180.0, 3)}
"""Seconds that a phase takes, about, and how often it is cut."""
PHASES: dict[str, dict[Kind, Phase]] = {
    "sample": {
        "heuristic": Phase(kind="heuristic", runs=150, steps=20),
        "scripted": Phase(kind="scripted", runs=64, steps=20, latency_s=0.05),
    },
    "short": {
        "heuristic": Phase(kind="heuristic", runs=700, steps=200),
        "scripted": Phase(kind="scripted", runs=210, steps=20, latency_s=0.08),
    },
    "long": {
        "heuristic": Phase(kind="heuristic", runs=6400, steps=50),
        "scripted": Phase(kind="scripted", runs=800, steps=40, latency_s=0.08),
    },
}
SLOWED_S = 0.01
"""What each file operation of the long heuristic phase takes besides: at full speed it would
write gigabytes."""


def why_not_here() -> str | None:
    if os.geteuid() != 0:
        return "a power cut needs root: it mounts an ext4 of its own"
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        return f"a power cut needs {', '.join(missing)}: apt-get install e2fsprogs mount util-linux"
    try:
        with Disk(FOLDER):
            pass
    except subprocess.CalledProcessError as error:
        return f"no ext4 can be mounted here: {' '.join(error.cmd)}: {error.stderr.strip()}"
    return None


class Disk:
    """An ext4 to play on, mounted at `root`, and copies of it. Leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(mkdtemp(prefix="chaos.power.", dir=folder))
        self.root = self.folder / "root"
        self._outer = self.folder / "outer"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            for point in (self.root, self._outer):
                point.mkdir()
            image = self.folder / "outer.img"
            _make(image, OUTER_MIB)
            _mount(image, self._outer)
            stack.callback(_unmount, self._outer)
            _make(self._image, INNER_MIB)
            self.mount(self._image)
            stack.callback(_unmount, self.root)
            # Should it be left between freezing and thawing.
            stack.callback(_thaw, self._outer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def _image(self) -> Path:
        return self._outer / "inner.img"

    def cut(self, number: int) -> tuple[Path, float]:
        """What a power cut would leave at this moment, and the seconds that writes stood still."""
        copy = self.folder / f"cut.{number}.img"
        began = time.monotonic()
        try:
            _do("fsfreeze", "--freeze", str(self._outer))
            _do("cp", "--sparse=always", str(self._image), str(copy))
        finally:
            _thaw(self._outer)
        return copy, time.monotonic() - began

    def mount(self, image: Path) -> bool:
        """Mount an image at `root`, where the experiment always was; whether it needed e2fsck."""
        try:
            _mount(image, self.root)
            return False
        except subprocess.CalledProcessError:
            subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True, check=False)
            _mount(image, self.root)
            return True

    def unmount(self) -> None:
        _unmount(self.root)


def play(
    phase: Phase,
    moments: list[float],
    *,
    about_s: float,
    slowed_s: float = 0.0,
    at_done: int | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Cut a phase at `moments`, in seconds from its start, and go on from each; figures a cut.

    With `at_done` there is one more cut, when so many runs are finished, however long that takes.
    """
    with Disk(FOLDER) as disk, Program(disk.folder) as program:
        file, folder = phase.write(disk.folder), disk.root / phase.kind
        command = run_command(file, disk.root, workers=WORKERS)
        slowed = Faults(folder=str(folder), noted=str(disk.folder), delay_s=slowed_s)
        began = time.monotonic()
        log = disk.folder / "played"
        with log.open("w") as output:
            process = program.start(
                *command,
                env=slowed.variable() if slowed_s else None,
                shim=write_shim(disk.folder) if slowed_s else None,
                stdout=output,
                stderr=output,
            )
            cuts = []
            for number, moment in enumerate([*sorted(moments), *([None] if at_done else [])]):
                if moment is None:
                    _wait_for_results(folder, at_done or 0, process)
                else:
                    time.sleep(max(0.0, began + moment - time.monotonic()))
                at = time.monotonic() - began
                image, stood = disk.cut(number)
                cuts.append((at, image, stood, process.poll() is not None))
            process.wait(timeout=20 * about_s)
        seconds = time.monotonic() - began
        collected = program("collect", folder)
        if process.returncode or collected.exit:
            raise RuntimeError(f"undisturbed, it failed: {log.read_text()}{collected.text}")
        whole = read(folder)
        disk.unmount()
        for at, image, stood, was_over in cuts:
            checked = disk.mount(image)
            before = read(folder)
            short = short_now(before, whole)
            status = program("status", folder)
            rest = finish(program, file, disk.root, folder, workers=WORKERS)
            verdict = compare(read(folder), whole)
            tracebacks = status.tracebacks + sum(each.tracebacks for each in rest)
            yield {
                "kind": f"power cut of a phase of {seconds:.0f} s",
                "engine": phase.kind,
                "at, s": round(at, 1),
                "after its end": was_over,
                "writes stood still, s": round(stood, 3),
                "e2fsck": checked,
                "runs": verdict.runs,
                "finished at the cut": len(before.outcomes),
                "short at the cut": len(short),
                "status exit": status.exit,
                "status said": last_line_of(status.text)[:200],
                "exits after": [each.exit for each in rest],
                **verdict.figures(),
                "tracebacks": tracebacks + tracebacks_in(folder),
                "hung": sum(each.exit is None for each in (status, *rest)),
                "good": verdict.is_good
                and rest[-1].exit == 0
                and not tracebacks + tracebacks_in(folder)
                and not (short and status.exit == 0),
            }
            disk.unmount()
            image.unlink()


def moments_of(about_s: float, count: int, *, seed: int) -> list[float]:
    """Spread over a phase, each at random in its part; none before workers can have begun."""
    drawn = random.Random(seed)
    first = min(2.0, about_s / 4)
    part = (about_s - first) / count
    return [first + part * (number + drawn.random()) for number in range(count)]


# -- private -------------------------------------------------------------------------------


def _wait_for_results(folder: Path, count: int, process: "subprocess.Popen[str]") -> None:
    while process.poll() is None and len(list(folder.glob("results/[!.]*.json"))) < count:
        time.sleep(0.02)


def _make(image: Path, mib: int) -> None:
    with image.open("wb") as file:
        file.truncate(mib << 20)
    _do("mkfs.ext4", "-q", "-F", str(image))


def _mount(image: Path, point: Path) -> None:
    _do("mount", "-o", "loop,noatime", str(image), str(point))


def _unmount(point: Path) -> None:
    """The loop device goes with it. Somebody may still be leaving: it is tried for a while."""
    for _ in range(100):
        if not os.path.ismount(point):
            return
        with suppress(subprocess.CalledProcessError):
            _do("umount", str(point))
            return
        time.sleep(0.1)
    _do("umount", "--lazy", str(point))


def _thaw(point: Path) -> None:
    """Also if it is not frozen."""
    with suppress(subprocess.CalledProcessError):
        _do("fsfreeze", "--unfreeze", str(point))


def _do(*command: str) -> None:
    env = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    subprocess.run(command, check=True, capture_output=True, text=True, env=env)
