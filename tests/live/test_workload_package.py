"""A workload in somebody else's package, played by the real vLLM: killed, resumed, and told."""

import json
import signal
from pathlib import Path

import polars
import pytest

from tests.installing import PACKAGE, install
from tests.live.conftest import Models
from tests.live.place import RUNS, START_PATIENCE_S, Place
from tests.product import vendomini, wait_until

STEPS = 5
REPLY_TOKENS = 96
"""A run takes some seconds, and a log is written every two: it is seen in its middle."""


@pytest.mark.vllm
@pytest.mark.long
def test_a_strangers_workload_is_killed_resumed_collected_and_told_on_vllm(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = install(PACKAGE, tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", env["PYTHONPATH"])
    place = LabelPlace(tmp_path, models.warehouse(), "vllm")
    try:
        planned = vendomini("plan", "--config", place.file, "--json", cwd=tmp_path)
        (group,) = json.loads(planned.stdout)["groups"]
        assert group["backend"] == "vllm"
        place.start("engine.concurrency=2")
        worker = place.worker
        wait_until(lambda: has_begun(place), patience_s=START_PATIENCE_S)
        place.processes()  # to be known again when they have lost their parents
        worker.send(signal.SIGKILL)
        ended = place.end()
        assert ended.status == 1, ended.said
        assert "1 of 1 workers were killed" in ended.said
        place.assert_nothing_is_left()
        before = place.kept()
        assert len(place.experiment.finished()) < RUNS
        ended = place.run()
        assert ended.status == 0, ended.said
        place.assert_complete()
        place.assert_only_grew(before)
        assert place.replayed() > 0
        place.assert_nothing_is_left()
    finally:
        place.clear()
    collected = json.loads(vendomini("collect", "deaths", "--json", cwd=tmp_path).stdout)
    runs = polars.read_parquet(tmp_path / collected["runs_parquet"])
    assert sorted(runs["world"].to_list()) == ["colours"] * 4 + ["sizes"] * 4
    assert set(runs["served.backend"]) == {"vllm"}
    assert collected["steps"] == RUNS * STEPS
    told = vendomini("play", "deaths", cwd=tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr


def has_begun(place: Place) -> bool:
    """Whether replies of a run that is not finished are on disk."""
    logs = place.experiment.path("logs").glob("*.replies.jsonl")
    lines = (line for log in logs for line in log.read_bytes().split(b"\n")[:-1])
    return any(json.loads(line)["run"] not in place.experiment.finished() for line in lines)


class LabelPlace(Place):
    """A place whose phase is the stranger's; the engine is the other's."""

    def __init__(self, folder: Path, model: Path, backend: str) -> None:
        super().__init__(folder, model, backend)
        self.file = folder / "deaths.yaml"
        phase = json.loads(self.file.read_text())
        del phase["fixed"], phase["agent"]["kind"]
        phase["inherit"] = "base"
        phase["agent"]["model"]["max_tokens_per_call"] = REPLY_TOKENS
        phase["experiment"] |= {"workload": "label_search", "replications": 2}
        phase["grid"] = {"task.name": ["colours", "sizes"], "task.tone": ["plain", "polite"]}
        self.file.write_text(json.dumps(phase))
