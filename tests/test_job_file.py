"""What a worker is told by a file that another version wrote while it waited in Slurm's queue."""

import json
from pathlib import Path

import pytest

from tests.product import ROOT
from tests.specs import engine_spec
from vendomini.errors import StoreError
from vendomini.worker.job import read_job, write_job

OF_BEFORE = ROOT / "tests" / "data" / "job_of_before.json"
"""As it was written before an engine was described by one record."""


def test_a_job_of_before_opens_the_same_engine() -> None:
    job = read_job(OF_BEFORE)
    assert job.engine == engine_spec(
        backend="vllm",
        model="org/model",
        revision="main",
        thinking=True,
        enable_expert_parallel=True,
        dtype="float16",
        gpus=4,
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
        max_model_len=8192,
        concurrency=64,
        enforce_eager=True,
        python="/opt/vllm/bin/python",
    )
    assert job.fallback is None
    assert (job.workers, job.minutes, job.conversation_tokens) == (3, 240, 9000)


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    job = read_job(OF_BEFORE)
    assert read_job(write_job(tmp_path, job)) == job


def test_a_job_of_a_group_that_never_asks_has_no_engine(tmp_path: Path) -> None:
    written = json.loads(OF_BEFORE.read_text()) | {"engine": None}
    (tmp_path / "job.json").write_text(json.dumps(written))
    assert read_job(tmp_path / "job.json").engine is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine": {"backend": "vllm"}}, "submitted by an older version"),
        ({"engine": {"settings": {"backend": 3}, "model": "m"}}, "or a newer one"),
        ({"workers": "many"}, "submitted by an older version"),
        ({"from_the_future": 1}, "unknown field `from_the_future`"),
        ({"engine": {"settings": {"speculative": 1}, "model": "m"}}, "field `speculative`"),
        ({"fallback": {"settings": {"speculative": 1}, "model": "m"}}, "field `speculative`"),
    ],
)
def test_a_job_that_says_other_things_is_refused_by_its_version(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(json.loads(OF_BEFORE.read_text()) | change))
    with pytest.raises(StoreError, match=said) as caught:
        read_job(tmp_path / "job.json")
    assert "nothing is lost" in caught.value.hint


def test_a_torn_job_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(OF_BEFORE.read_bytes()[:100])
    with pytest.raises(StoreError, match="is damaged"):
        read_job(tmp_path / "job.json")


def test_nothing_that_a_job_of_before_said_is_lost(tmp_path: Path) -> None:
    before = json.loads(OF_BEFORE.read_text())
    now = json.loads(write_job(tmp_path, read_job(OF_BEFORE)).read_text())
    settings = now["engine"].pop("settings")
    assert {**settings, **now["engine"]}.items() >= before.pop("engine").items()
    assert now.items() >= before.items()
