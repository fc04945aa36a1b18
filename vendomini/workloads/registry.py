"""The workloads that can be named in a phase file: by entry points of installed packages.

A package that brings one says so in its pyproject.toml, and nothing else is needed:

    [project.entry-points."vendomini.workloads"]
    icm = "my_lab.icm:ICM"

A phase file can also name the class itself, ``experiment.workload: my_lab.icm:ICM``. A workload is
loaded when it is asked for.
"""

import dataclasses
import difflib
import functools
import importlib
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from typing import Any, TypeGuard

from vendomini.errors import ConfigError, UnknownWorkload
from vendomini.phase import Asked, Run, settings_of, todays_run
from vendomini.schema import setting_keys
from vendomini.workloads.workload import Workload

GROUP = "vendomini.workloads"

USUAL = "warehouse"
"""What is played by a phase file that does not say: those written before there was a choice."""


@functools.cache
def workload_named(name: str | None) -> Workload:
    """The workload of an entry point, or of a class ``package.module:Class``; None: the usual one.

    Raises `ConfigError` naming the nearest there is, or why what is named cannot be played.
    """
    name = USUAL if name is None else name
    known = _registered()
    if name in known:
        one, *others = known[name]
        if others:
            raise ConfigError(
                f"two installed packages bring a workload `{name}`: `{one.value}` and "
                f"`{others[0].value}`",
                hint="uninstall one, or name the class itself as experiment.workload",
            )
        return _made(f"{one.module}:{one.attr}", name)
    if ":" in name:
        # Where the class alone has a name of its own, runs are the same under both.
        named = [n for n, points in known.items() if [each.value for each in points] == [name]]
        return _made(name, named[0] if named else name)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    there_are = f"there are: {', '.join(sorted(known))}; or name a class as package.module:Class"
    raise UnknownWorkload(
        f"`experiment.workload` is `{name}`, which is no workload of the packages installed here",
        hint=f"did you mean `{nearest[0]}`? {there_are[0].upper()}{there_are[1:]}"
        if nearest
        else f"install a package that brings one: {there_are}",
    )


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
    points = _registered().get(workload.name, [])
    if points and points[0].dist is not None:
        origin = f"{points[0].dist.name} {points[0].dist.version}"
    else:
        package = module_of(workload).partition(".")[0]
        brought_by = packages_distributions().get(package, ())
        origin = f"{brought_by[0]} {version(brought_by[0])}" if brought_by else f"module {package}"
    return f"{workload.name} {workload.version} of {origin}"


# -- private -------------------------------------------------------------------------------


def _registered() -> dict[str, list[EntryPoint]]:
    """Every entry point by name; several where packages have the same one."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        known = found.setdefault(point.name, [])
        if point.value not in [each.value for each in known]:
            known.append(point)
    return found


def _made(value: str, name: str) -> Workload:
    module, _, attribute = value.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Its own imports may fail, too: then the package is there, and broken.
        problem = f"there is no module `{error.name}`"
        raise _refused(name, value, problem, "install the package in this environment") from None
    except Exception as error:
        # Somebody else's code, while it is loaded, may do anything.
        problem = f"loading `{module}` fails with {type(error).__name__}: {error}"
        hint = f"`{sys.executable} -c 'import {module}'` shows where"
        raise _refused(name, value, problem, hint) from None
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        problem = f"`{module}` has no `{attribute}`"
        raise _refused(name, value, problem, "name the class after the colon") from None
    if not (isinstance(found, type) and issubclass(found, Workload)):
        problem = "it is no subclass of `vendomini.workloads.Workload`"
        raise _refused(name, value, problem, "derive the class from it: docs/workloads.md")
    try:
        lacks = list(_lacks(found))
    except NameError as error:  # of an annotation
        lacks = [f"has settings of a type that is not there: {error}"]
    if lacks:
        raise _refused(name, value, f"it {lacks[0]}", "see the example in docs/workloads.md")
    try:
        workload: Workload = found()
    except Exception as error:
        problem = f"it cannot be made without arguments: {type(error).__name__}: {error}"
        raise _refused(name, value, problem, "let its settings say what it is told") from None
    workload.name = name
    return workload


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


def _refused(name: str, value: str, problem: str, hint: str) -> ConfigError:
    what = f"workload `{name}`" if name == value else f"workload `{name}` (`{value}`)"
    return ConfigError(f"{what} cannot be played: {problem}", hint=hint)
