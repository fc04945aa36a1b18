"""The one expander: for the count, a local run, an array and a resume alike."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from vendomini.chat import MODEL
from vendomini.config.arms import Arm, with_setting
from vendomini.config.load import MODEL_NAME, Phase
from vendomini.config.translation import leaves
from vendomini.errors import ConfigError
from vendomini.identity import model_identity, run_id
from vendomini.phase import (
    ModelSettings,
    Run,
    Scalar,
    has_model,
    model_settings,
    one_an_arm,
    setting,
    todays_run,
)
from vendomini.schema import at_key, defaults, first_words, settings_out_of_id, shown
from vendomini.serving import EngineSettings

REVISION = f"{MODEL}.revision"
WINDOW = f"{MODEL}.context_length"
NAMED_APART = frozenset({MODEL_NAME, REVISION})
"""Settings that enter a run's id as the identity of its model."""


def expand(
    phase: Phase,
    *,
    window: int | None = None,
    known: Callable[[], Mapping[str, Run]] = dict,
) -> list[Run]:
    """Every run: the product of the axes, last axis fastest, replications innermost.

    A run's settings are the sections but `experiment`; runs of one arm share them. `window`, in
    tokens, is what a context length of ``auto`` means for runs with a language model: the number
    is part of what they are, the word is not. None: it is not known, and the word stays. `known`
    are runs that are there already, by id: one that an older version wrote keeps its id of then,
    and what was in the ids of that version as it was. Raises `ConfigError` if a model's folder is
    missing, or two arms are the same run (two folders with the same model).
    """
    runs = _expanded(phase, window)
    if not phase.once_in_id or not (written_then := known()):
        return runs
    there = {
        id: todays_run(run, phase.settings_type) if run.workload == phase.workload else run
        for id, run in written_then.items()
    }
    written = {key: setting(phase.base, key) for key in phase.once_in_id}
    # Whatever the file says now, a run that is there is the run.
    others = [_then(run, phase.once_in_id) for run in one_an_arm(there.values())]
    usual = defaults(phase.settings_type)
    for values in dict.fromkeys((tuple(written.items()), *others)):
        if all(value == setting(usual, key) for key, value in values):
            continue  # those ids are today's
        older = _expanded(phase, window, once=dict(values))
        is_first = dict(values) == written
        runs = [
            then if then.id in there and (is_first or now.id not in there) else now
            for now, then in zip(runs, older, strict=True)
        ]
    kept = _Kept(phase.once_in_id)
    return [kept.as_it_was(run, there[run.id]) if run.id in there else run for run in runs]


def windowless(arm: Arm) -> bool:
    """Whether it depends on the phase's models how long the conversations of an arm may be."""
    return arm.asks == "model" and setting(arm.settings, WINDOW) == "auto"


def engines_of(phase: Phase) -> list[EngineSettings]:
    """What a phase says of its engines, each once, in the grid's order."""
    written = {id(arm.settings["engine"]): arm.settings["engine"] for arm in phase.arms}
    return [msgspec.convert(each, EngineSettings) for each in written.values()]


def models_of(phase: Phase) -> list[ModelSettings]:
    """The models that a phase names, each once as it is set, in the grid's order."""
    named = [arm.settings for arm in phase.arms if has_model(arm.settings)]
    return [model_settings(each) for each in {id(setting(s, MODEL)): s for s in named}.values()]


# -- private -------------------------------------------------------------------------------


def _expanded(
    phase: Phase, window: int | None, *, once: Mapping[str, Any] | None = None
) -> list[Run]:
    """`once` are values of settings that were in the ids of older versions, to give those ids."""
    identity = functools.cache(model_identity)
    usual = dict(leaves(defaults(phase.settings_type)))
    sections = {n: s for n, s in phase.base.items() if n not in ("experiment", "engine")}
    left_out = settings_out_of_id(phase.settings_type)
    in_it = {key: value for key, value in (once or {}).items() if value != usual[key]}
    unusual = {
        key: value for key, value in leaves(sections) if _differs(key, value, usual, left_out)
    }
    arms: dict[str, Mapping[str, Scalar]] = {}
    runs: list[Run] = []
    for arm in phase.arms:
        settings = arm.settings
        chosen = {**arm.values, **arm.derived}
        if window is not None and windowless(arm):
            settings = with_setting(settings, WINDOW, window)
            chosen[WINDOW] = window
        named = {key: value for key, value in unusual.items() if key not in chosen}
        # An engine's setting has no usual value: as an axis it is in the id, whatever it is.
        named |= {k: v for k, v in chosen.items() if _differs(k, v, usual, left_out)}
        named |= in_it
        named = {k: first_words(v, at_key(k, phase.settings_type)) for k, v in named.items()}
        model = None
        if has_model(settings):
            model = identity(setting(settings, MODEL_NAME), setting(settings, REVISION))
        for replication in range(phase.experiment.replications):
            name = run_id(
                workload=phase.workload,
                workload_version=phase.workload_version,
                seed=phase.seed,
                replication=replication,
                model=model,
                settings=named,
            )
            if name in arms:
                raise ConfigError(
                    f"{phase.path}: two cells of the grid are the same run: "
                    f"`{_worded(arms[name])}` and `{_worded(arm.values)}`",
                    hint="remove one of the values in which they differ",
                )
            arms[name] = arm.values
            runs.append(
                Run(
                    id=name,
                    workload=phase.workload,
                    workload_version=phase.workload_version,
                    seed=phase.seed,
                    replication=replication,
                    arm=arm.values,
                    settings=settings,
                    asks=arm.asks,
                    phase_file=phase.path.name,
                )
            )
    return runs


def _differs(key: str, value: object, usual: Mapping[str, Any], left_out: tuple[str, ...]) -> bool:
    """Whether a setting enters a run's id as such."""
    if key in NAMED_APART or any(key == name or key.startswith(f"{name}.") for name in left_out):
        return False
    return key not in usual or value != usual[key]


class _Kept:
    """Gives runs the values that settings had when they were written: a result may mean them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        # The runs of an arm go on sharing their settings.
        self._made: dict[tuple[int, str], Mapping[str, Any]] = {}

    def as_it_was(self, run: Run, then: Run) -> Run:
        values = {key: _setting(then.settings, key) for key in self._keys}
        if all(value in (None, _setting(run.settings, key)) for key, value in values.items()):
            return run
        name = id(run.settings), repr(values)
        if name not in self._made:
            settings = run.settings
            for key, value in values.items():
                if value is not None:
                    settings = with_setting(settings, key, value)
            self._made[name] = settings
        return replace(run, settings=self._made[name])


def _then(run: Run, keys: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    found = ((key, _setting(run.settings, key)) for key in keys)
    return tuple((key, value) for key, value in found if value is not None)


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    """None: the settings are of before there was such a one, or of another workload."""
    try:
        return setting(settings, key)
    except (KeyError, TypeError):
        return None


def _worded(arm: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in arm.items())
