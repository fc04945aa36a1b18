"""Engines of others that are made wrongly, or fail in what they say of themselves."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forked import Forked
from tests.harness import job_for, make_worker
from tests.product import ROOT
from tests.specs import engine_spec
from tests.stranger_engines import DEAR
from tests.toy import toy_experiment
from vendomini.chat import ChatRequest, Message, Sampling
from vendomini.engines.registry import backend_named, engine_for, usd_of
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import ConfigError, EngineError


@pytest.fixture(scope="module")
def program() -> Iterator[Forked]:
    with Forked({**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}) as forked:
        yield forked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Misspelt", "has `concurency` in `takes`, which is no setting of `engine`"),
        ("Listed", "has `takes` `'concurrency'`, which is no set of names"),
        ("OneWord", "has `packages` `'msgspec'`, which is no tuple of names"),
        ("Mute", "has no `command`"),
    ],
)
def test_an_engine_that_is_made_wrongly_is_refused_before_it_is_asked(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        backend_named(f"tests.stranger_engines:{name}")
    assert said in str(caught.value)
    assert "docs/engines.md" in caught.value.hint


def test_an_engine_whose_open_gives_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="its `open` gives `None`, which has no `features`"):
        engine_for(
            engine_spec(backend="tests.stranger_engines:Forgetful", model="m"),
            log=tmp_path / "log",
            said=print,
        )


def test_a_script_that_answers_nothing_is_named() -> None:
    request = ChatRequest(messages=(Message(role="user", content="hello"),), sampling=Sampling())
    mute: Any = lambda request: None  # noqa: E731
    with pytest.raises(EngineError, match="neither text nor a `Reply`"):
        asyncio.run(ScriptedEngine(mute).answer(request))


def test_a_price_that_cannot_be_said_costs_no_run(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    job = job_for(experiment, engine=engine_spec(backend=DEAR, model="toy/model"))
    heard: list[str] = []
    worker = make_worker(experiment, job, ScriptedEngine(echo), said=heard.append)
    ended = asyncio.run(worker.work())
    assert (ended.runs, ended.failed, ended.problem) == (len(experiment.runs()), 0, None)
    assert any("its `usd` fails with KeyError" in text for text in heard)
    results = [experiment.result(run) for run in experiment.finished()]
    assert {each.served.usd for each in results if each is not None} == {None}


def test_a_price_that_cannot_be_said_is_one_error_of_the_plan() -> None:
    with pytest.raises(ConfigError, match=r"its `usd` fails with KeyError: 'price'"):
        usd_of(engine_spec(backend=DEAR, model="m"), tokens_in=1, tokens_out=1)


def test_packages_of_an_engine_without_gpus_are_looked_for(program: Forked, tmp_path: Path) -> None:
    """Dear needs msgspec, which is here; Dotted a module of a package that is not."""
    words = ("plan", "demo", "agent.kind=llm", "agent.model.context_length=8192", "--json")
    for name, said in (("Dear", "its `usd` fails with KeyError"), ("Dotted", None)):
        backend = f"engine.backend=tests.stranger_engines:{name}"
        done = program(*words, backend, cwd=tmp_path)
        if said is not None:
            assert said in done.stderr
            continue
        (group,) = json.loads(done.stdout)["groups"]
        assert "no `no_such_package.inside` in" in "\n".join(group["reasons"])
