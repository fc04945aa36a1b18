"""What `status` says of a worker, from its last heartbeat."""

from pathlib import Path
from typing import Any

import pytest

from vendomini.cli import show
from vendomini.standing import Counts, Status, WorkerStatus
from vendomini.store.process import this_process
from vendomini.store.records import WorkerRecord

COUNTS = Counts(total=4, done=1, running=3, waiting=0, failed=0)


def line_of(capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    """The line about a worker that lives."""
    record = WorkerRecord(
        incarnation="w1",
        beat=3,
        submission="first",
        group="toy",
        started="2026-01-01T00:00:00+00:00",
        process=this_process(),
        **changes,
    )
    status = Status(
        name="small",
        folder=Path("small"),
        runs=COUNTS,
        groups={"toy": COUNTS},
        workers=(WorkerStatus(record=record, is_alive=True, silent_s=1.0),),
        errors=(),
        orphaned=0,
    )
    show.status(status, show.SlurmWords())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("worker ")]
    return line.partition(": ")[2]


def test_a_worker_that_starts_says_what_its_engine_is_loading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    doing = "the engine starts, 12 s: Loading safetensors checkpoint shards: 40%"
    told = line_of(capsys, state="starting", engine={"backend": "vllm"}, doing=doing)
    assert told == f"starting, 0 runs done, 0 under way, 0 steps; {doing}"
    told = line_of(capsys, state="starting", engine={"backend": "hf"}, doing="[*] KV cache: [1]")
    assert told.endswith("; KV cache: [1]")


@pytest.mark.parametrize(
    ("backend", "facts", "serves"),
    [
        (
            "vllm",
            {"device": "cuda", "vllm": "0.32.0", "kv_cache_tokens": "131072"},
            "; vllm 0.32.0 on cuda, KV cache of 131,072 tokens",
        ),
        ("hf", {"device": "cpu"}, "; hf on cpu"),
        ("openai", {"dialect": "openai"}, "; openai"),
        ("scripted", {}, ""),
    ],
)
def test_a_worker_at_work_says_what_serves_it(
    capsys: pytest.CaptureFixture[str], backend: str, facts: dict[str, str], serves: str
) -> None:
    told = line_of(
        capsys,
        state="working",
        engine={"backend": backend},
        engine_facts=facts,
        runs=1,
        under_way=3,
    )
    assert told == f"working, 1 runs done, 3 under way, 0 steps{serves}"


def test_a_worker_without_an_engine_says_nothing_of_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert line_of(capsys, state="working", steps=7) == "working, 0 runs done, 0 under way, 7 steps"
