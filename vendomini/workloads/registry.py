"""The workloads that can be named in a phase file: by entry points of installed packages.

A package that brings one says so in its pyproject.toml, and nothing else is needed:

    [project.entry-points."vendomini.workloads"]
    icm = "my_lab.icm:ICM"

A phase file can also name the class itself, ``experiment.workload: my_lab.icm:ICM``. A workload is
loaded when it is asked for.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import TypeGuard

from vendomini.entrypoints import WORKLOADS, brought_by
from vendomini.errors import ConfigError, UnknownWorkload
from vendomini.phase import Asked, Run, settings_of, todays_run
from vendomini.schema import setting_keys
from vendomini.workloads.workload import Workload

USUAL = "warehouse"
"""What is played by a phase file that does not say: those written before there was a choice."""


@functools.cache
def workload_named(name: str | None) -> Workload:
    """The workload of an entry point, or of a class ``package.module:Class``; None: the usual one.

    Raises `ConfigError` naming the nearest there is, or why what is named cannot be played.
    """
    name = USUAL if name is None else name
    known = WORKLOADS.value_of(name)
    if known is None:
        raise UnknownWorkload(
            f"`experiment.workload` is `{name}`, which is no workload of the packages installed "
            "here",
            hint=WORKLOADS.hint_for(name),
        )
    own_name, value = known
    workload: Workload = WORKLOADS.made(own_name, value, base=Workload, lacks=_lacks)
    workload.name = own_name
    return workload


def asked_by(run: Run) -> Asked:
    """Whom a run asks, also one that was written before runs said so."""
    if run.asks is not None:
        return run.asks
    workload = workload_named(run.workload)
    return workload.asks(settings_of(run.settings, workload.settings_type))


def todays_runs(runs: Iterable[Run]) -> list[Run]:
    """Runs in today's words; those of a workload that is not installed as they were written."""
    types: dict[str, type | None] = {}
    found = []
    for run in runs:
        if run.workload not in types:
            try:
                types[run.workload] = workload_named(run.workload).settings_type
            except ConfigError:
                types[run.workload] = None
        settings_type = types[run.workload]
        found.append(run if settings_type is None else todays_run(run, settings_type))
    return found


def module_of(workload: Workload) -> str:
    """The module that an interpreter must be able to import to play it."""
    return type(workload).__module__


def described(workload: Workload) -> str:
    """What provenance says of it: ``icm 2 of my-lab 0.3.1``, the version of its package last."""
    origin = brought_by(WORKLOADS, workload.name, module_of(workload))
    return f"{workload.name} {workload.version} of {origin}"


# -- private -------------------------------------------------------------------------------


def _lacks(found: type[Workload]) -> Iterable[str]:
    """What a class has to have and does not, in words."""
    if found.play is Workload.play:
        yield "has no `play`"
    for needed in ("settings_type", "outcome_type"):
        given = getattr(found, needed, None)
        if given is None:
            yield f"has no `{needed}`"
        elif not isinstance(given, property) and not _is_dataclass(given):
            yield f"has an `{needed}` that is no dataclass: `{given!r}`"
    if not _is_dataclass(settings := getattr(found, "settings_type", None)):
        return
    keys = setting_keys(settings)
    for key in found.unit:
        if key not in keys:
            yield f"has the `unit` `{key}`, which is no setting of it ({', '.join(keys)})"


def _is_dataclass(given: object) -> TypeGuard[type]:
    return isinstance(given, type) and dataclasses.is_dataclass(given)
