"""A plan of runs that ask many requests at once, such as all scores of a batch."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.product import ROOT, vendomini


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The only group of such a plan on a cluster with H100s, and the plan as text."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file = tmp_path / "batches.yaml"
    phase = {
        "inherit": "base",
        "experiment": {"workload": "tests.toy:Batches", "replications": 40},
        "agent": {"model": {"context_length": 4096}},
    }
    file.write_text(json.dumps(phase))
    words = ("plan", "--config", file, "--profile", ROOT / "slurm" / "h100.yaml")
    done, text = vendomini(*words, "--json"), vendomini(*words)
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    return {**group, "text": " ".join(text.stdout.split())}


def test_256_scores_at_once_are_not_taken_for_one_conversation_that_grows(
    planned: dict[str, Any],
) -> None:
    assert planned["at_once"] == 256
    assert planned["conversation_tokens"] == 801


def test_as_many_runs_are_under_way_as_their_requests_have_room(planned: dict[str, Any]) -> None:
    assert 1 <= planned["concurrency"] // 256 < 40
    assert "each run asks up to 256 requests at once: the engine takes as many" in (planned["text"])


def test_runs_of_5120_requests_are_not_called_short(planned: dict[str, Any]) -> None:
    assert "long runs (5120 requests)" in planned["text"]
    assert "short runs" not in planned["text"]
