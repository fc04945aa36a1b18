"""What serves a group is decided once: other engine settings are refused, or start it anew."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness import outcomes
from tests.product import write_phase
from vendomini.cli.running import run
from vendomini.errors import ConfigError
from vendomini.looking.prepared import Request
from vendomini.store.experiment import Experiment

GROUP = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture
def played(tmp_path: Path) -> Request:
    """A phase of the probe, done with the engine's own dtype."""
    request = Request(
        config=write_phase(tmp_path, replications=2, steps=5, latency_s=0),
        overrides=(),
        cluster=False,
        profile=None,
        root=tmp_path / "root",
        limit=None,
        n_jobs=1,
        restart_groups=(),
    )
    assert run(request) == 0
    return request


def experiment_of(request: Request) -> Experiment:
    return Experiment(request.root / "small")


def test_another_engine_for_a_group_with_replies_is_refused_with_the_way_out(
    played: Request,
) -> None:
    more = ("engine.dtype=float16", "experiment.replications=3")
    before = experiment_of(played).runs()
    with pytest.raises(ConfigError, match=r"come from scripted; .* asks for .*float16") as caught:
        run(replace(played, overrides=more))
    assert f"--restart-group {GROUP}" in caught.value.hint.replace("'", "").replace("`", "")
    assert experiment_of(played).runs() == before


def test_the_same_engine_goes_on_with_the_group(played: Request) -> None:
    done = outcomes(experiment_of(played))
    assert run(replace(played, overrides=("experiment.replications=3",))) == 0
    now = outcomes(experiment_of(played))
    assert len(now) == len(done) * 3 // 2
    assert done.items() <= now.items()


def test_a_group_that_starts_anew_is_played_anew_and_nothing_of_it_is_deleted(
    played: Request,
) -> None:
    experiment = experiment_of(played)
    done = outcomes(experiment)
    first = {record.incarnation for record in experiment.workers().values()}
    again = replace(played, overrides=("engine.dtype=float16",), restart_groups=(GROUP,))
    assert run(again) == 0
    assert outcomes(experiment) == done
    results = [experiment.result(name) for name in done]
    assert not first & {result.served.incarnation for result in results if result is not None}
    assert len(list(experiment.path("archive", "1", "results").iterdir())) == len(done)


def test_a_group_that_does_not_exist_cannot_start_anew(played: Request) -> None:
    with pytest.raises(ConfigError, match="no group `other`") as caught:
        run(replace(played, restart_groups=("other",)))
    assert GROUP in caught.value.hint
    with pytest.raises(ConfigError, match="no group `other`"):
        run(replace(played, restart_groups=(GROUP, "other")))
    assert not experiment_of(played).path("archive").exists()


def test_one_group_starting_anew_does_not_excuse_another_and_nothing_is_moved(
    played: Request,
) -> None:
    both = f"grid.agent.model.name=[{GROUP},other/model]"
    assert run(replace(played, overrides=(both,))) == 0
    done = outcomes(experiment_of(played))
    again = replace(played, overrides=(both, "engine.dtype=float16"), restart_groups=(GROUP,))
    with pytest.raises(ConfigError, match="group `other/model`"):
        run(again)
    assert outcomes(experiment_of(played)) == done
    assert not experiment_of(played).path("archive").exists()
