"""The one expander: for the count, a local run, an array and a resume alike."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from vendomini.config.load import LEVEL, MODEL, STEPS, Phase
from vendomini.errors import ConfigError
from vendomini.identity import model_identity, run_id
from vendomini.phase import Run, Scalar, setting
from vendomini.schema import defaults, shown

REVISION = "agent.model.revision"
WINDOW = "agent.model.context_length"
KIND = "agent.kind"
NAMED_APART = frozenset({MODEL, REVISION})
"""Settings that enter a run's id as the identity of its model."""


def expand(phase: Phase, *, window: int | None = None) -> list[Run]:
    """Every run: the product of the axes, last axis fastest, replications innermost.

    A run's settings are the sections but `experiment`; runs of one arm share them. `window`, in
    tokens, is what a context length of ``auto`` means for runs with a language model: the number
    is part of what they are, the word is not. None: it is not known, and the word stays. Raises
    `ConfigError` if a model's folder is missing, or two arms are the same run (two folders with
    the same model).
    """
    identity = functools.cache(model_identity)
    sections = {name: section for name, section in phase.base.items() if name != "experiment"}
    usual = dict(_flat(defaults(phase.settings_type)))
    own = _flat({name: section for name, section in sections.items() if name != "engine"})
    unusual = {key: value for key, value in own if _differs(key, value, usual)}
    arms: dict[str, Mapping[str, Scalar]] = {}
    runs: list[Run] = []
    for arm in _arms(phase):
        settings = sections
        for key, value in arm.items():
            settings = _with(settings, key, value)
        chosen = dict(arm)
        if phase.max_steps_by_level:
            steps = phase.max_steps_by_level.get(str(setting(settings, LEVEL)))
            if steps is not None:
                settings = _with(settings, STEPS, steps)
                chosen[STEPS] = steps
        if window is not None and windowless(settings):
            settings = _with(settings, WINDOW, window)
            chosen[WINDOW] = window
        named = {key: value for key, value in unusual.items() if key not in chosen}
        # An engine's setting has no usual value: as an axis it is in the id, whatever it is.
        named |= {key: value for key, value in chosen.items() if _differs(key, value, usual)}
        model = identity(setting(settings, MODEL), setting(settings, REVISION))
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
                    f"`{_worded(arms[name])}` and `{_worded(arm)}`",
                    hint="remove one of the values in which they differ",
                )
            arms[name] = arm
            runs.append(
                Run(
                    id=name,
                    workload=phase.workload,
                    workload_version=phase.workload_version,
                    seed=phase.seed,
                    replication=replication,
                    arm=arm,
                    settings=settings,
                )
            )
    return runs


def windowless(settings: Mapping[str, Any]) -> bool:
    """Whether it depends on the phase's models how long the conversations of a run may be."""
    return bool(setting(settings, KIND) == "llm" and setting(settings, WINDOW) == "auto")


def values_of(phase: Phase, key: str) -> tuple[Scalar, ...]:
    """The values that a setting has in a phase's runs: its axis, or its one value."""
    return dict(phase.axes).get(key, (setting(phase.base, key),))


def _arms(phase: Phase) -> Iterator[dict[str, Scalar]]:
    keys = [key for key, _ in phase.axes]
    for values in itertools.product(*(values for _, values in phase.axes)):
        yield dict(zip(keys, values, strict=True))


def _differs(key: str, value: object, usual: Mapping[str, Any]) -> bool:
    """Whether a setting enters a run's id as such."""
    return key not in NAMED_APART and (key not in usual or value != usual[key])


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of nested settings with its dotted key."""
    for name, value in nested.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _with(settings: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """`settings` with one value replaced; what is not on the way to it is shared, not copied."""
    name, _, inner = key.partition(".")
    return {**settings, name: _with(settings[name], inner, value) if inner else value}


def _worded(arm: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in arm.items())
