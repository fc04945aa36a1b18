"""What Python callers have, served as `vendomini.plan`, `run`, `status` and `load`.

Each does what the command of its name does, by the same function, and returns a value. `file` and
`profile` are paths, or names of shipped ones. `root` is the folder with all experiments; None: that
of VENDOMINI_ROOT, else `experiments` here. Each loads what it needs when it is called, as the
commands do.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vendomini.errors import ConfigError

if TYPE_CHECKING:
    from vendomini.collect import Tables
    from vendomini.looking.prepared import Request
    from vendomini.prepare import Plan
    from vendomini.running.phases import Played
    from vendomini.standing import Status

File: TypeAlias = str | os.PathLike[str]

Overrides: TypeAlias = Mapping[str, Any] | Sequence[str] | None
"""Settings that win over the file: by dotted key, or as ``KEY=VALUE``."""


def plan(
    file: File,
    *,
    overrides: Overrides = None,
    profile: File | None = None,
    cluster: bool = False,
    root: File | None = None,
    limit: int | None = None,
    n_jobs: int = 1,
    max_gpu_hours: float | None = None,
    check: bool = False,
) -> "Plan":
    """What `run` would do, and why, as `vendomini plan` shows it; nothing is written but a cache.

    Where this machine cannot hold the phase's models, it is the plan for an example of a cluster,
    and its notes say so. `check` tries the axes: the notes have those that do nothing.

    Raises `ConfigError` for what the phase, the overrides or the profile say wrong, and with
    `check` for an axis that does nothing where a model would be asked; `PlanError` if nothing
    fits, or if more than `max_gpu_hours` are expected; `SubmitError` if Slurm is asked and does
    not answer.
    """
    from vendomini.looking.prepared import checked, prepare

    request = _request(
        file,
        overrides=overrides,
        profile=profile,
        cluster=cluster,
        root=root,
        limit=limit,
        n_jobs=n_jobs,
        max_gpu_hours=max_gpu_hours,
    )
    prepared = prepare(request, only_plan=True)
    if check:
        prepared, _ = checked(request, prepared)
    return prepared.plan


def run(
    file: File,
    *,
    overrides: Overrides = None,
    profile: File | None = None,
    cluster: bool = False,
    root: File | None = None,
    limit: int | None = None,
    n_jobs: int = 1,
    max_gpu_hours: float | None = None,
    restart_groups: Sequence[str] = (),
    restart_runs: Sequence[str] = (),
    trust_names: bool = False,
    replace_grid: bool = False,
    quiet: bool = False,
) -> "Played":
    """Play a phase as `vendomini run` does: what is done stays, what is missing is played.

    Here it returns when nobody plays the runs any more, with `cluster` when they are submitted.
    That runs fail is no error: see the counts. Says how it goes on stderr, unless it is `quiet`.

    Raises `ConfigError`, `PlanError`, `SubmitError`, `StoreError` or `WorkloadError` for what
    cannot be done, before anything is written. A Ctrl-C, or a notebook's stop, has the workers
    leave and then raises `KeyboardInterrupt`: the same call goes on where this one stopped. Inside
    a Slurm job `cluster` is refused: the command would make its process a worker of that job.
    """
    from vendomini.running.interruptions import INTERRUPTED
    from vendomini.running.phases import run as run_phase
    from vendomini.running.plain import Lines, Silence

    request = _request(
        file,
        overrides=overrides,
        profile=profile,
        cluster=cluster,
        root=root,
        limit=limit,
        n_jobs=n_jobs,
        max_gpu_hours=max_gpu_hours,
        restart_groups=restart_groups,
        restart_runs=restart_runs,
        trust_names=trust_names,
        replace_grid=replace_grid,
    )
    played = run_phase(request, Silence() if quiet else Lines(), joins=False)
    if played.exit_status == INTERRUPTED:
        raise KeyboardInterrupt  # what follows in a script is not to be done either
    return played


def status(name: File, *, root: File | None = None) -> "Status":
    """How far an experiment is, from its files alone: by its folder, or its name below `root`.

    Raises `StoreError` if there is no such experiment.
    """
    from vendomini.looking.experiments import experiment_named
    from vendomini.standing import status_of

    return status_of(experiment_named(Path(name), _root(root)))


def load(name: File, *, root: File | None = None, keep_short: bool = False) -> "Tables":
    """An experiment's tables as `vendomini collect` makes them, each when it is first asked for.

    Nothing is written but what was counted. With `keep_short` the outcomes of runs whose steps are
    not all there are taken as they are. The experiment is named by its folder, or its name below
    `root`. Raises `StoreError` if there is no such.
    """
    from vendomini.collect import Tables
    from vendomini.looking.experiments import experiment_named

    return Tables(experiment_named(Path(name), _root(root)), keep_short=keep_short)


# -- private -------------------------------------------------------------------------------


def _root(root: File | None) -> Path:
    return Path(os.environ.get("VENDOMINI_ROOT") or "experiments" if root is None else root)


def _request(
    file: File,
    *,
    overrides: Overrides,
    profile: File | None,
    cluster: bool,
    root: File | None,
    limit: int | None,
    n_jobs: int,
    max_gpu_hours: float | None,
    restart_groups: Sequence[str] = (),
    restart_runs: Sequence[str] = (),
    trust_names: bool = False,
    replace_grid: bool = False,
) -> "Request":
    from vendomini.looking.prepared import Request

    for name, value in (
        ("overrides", overrides or ()),
        ("restart_groups", restart_groups),
        ("restart_runs", restart_runs),
    ):
        if isinstance(value, str):  # a sequence, too, of letters
            raise ConfigError(f"`{name}` is the text `{value}`", hint=f"give a list: [{value!r}]")
        if name == "overrides" and isinstance(value, Mapping):
            continue
        if not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
            more = "a mapping of settings, or " if name == "overrides" else ""
            raise ConfigError(f"`{name}` is `{value!r}`", hint=f"give {more}a list of texts")
    counts = {"n_jobs": n_jobs, **({} if limit is None else {"limit": limit})}
    for name, number in counts.items():
        if type(number) is not int:
            raise ConfigError(f"`{name}` is `{number!r}`", hint="give a whole number from 1 on")
    if max_gpu_hours is not None and type(max_gpu_hours) not in (int, float):
        raise ConfigError(f"`max_gpu_hours` is `{max_gpu_hours!r}`", hint="give a number")
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={_written(key, value)}" for key, value in overrides.items()]
    return Request(
        config=Path(file),
        overrides=tuple(overrides or ()),
        cluster=cluster,
        profile=None if profile is None else Path(profile),
        root=_root(root),
        limit=limit,
        n_jobs=n_jobs,
        restart_groups=tuple(restart_groups),
        restart_runs=tuple(restart_runs),
        trust_names=trust_names,
        replace_grid=replace_grid,
        max_gpu_hours=max_gpu_hours,
    )


def _written(key: str, value: Any) -> str:
    """A value as the command line has it: it is read back as what it was."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and _is_plain(key, value):
        return value  # as one would write it, which is how an error shows it
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(
            f"override `{key}`: `{value!r}` is no value that a phase file could have",
            hint="give text, a finite number, a boolean, None, or a list or mapping of these",
        ) from None


def _is_plain(key: str, text: str) -> bool:
    """Whether this text means itself without quotes."""
    from vendomini.yamlfile import parse_value

    try:
        return bool(parse_value(text, "override", key) == text)
    except ConfigError:  # one of YAML's traps, such as `0x10`
        return False
