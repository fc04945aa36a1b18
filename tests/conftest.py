"""What several test files share: Slurm, the real one and the imitated one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.slurm import FakeSlurm
from tests.slurm_cluster.cluster import SlurmCluster, why_not_here


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``pytest -n N --dist loadgroup`` all tests on the real Slurm share one cluster."""
    for item in items:
        if item.get_closest_marker("slurm") is not None:
            item.add_marker(pytest.mark.xdist_group("slurm"))


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
