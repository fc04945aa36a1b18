"""Which backend serves a group, and whether it can: pure, with the reasons."""

from collections.abc import Iterable, Sequence
from dataclasses import fields

from vendomini.cluster import EngineEnvironment, Profile
from vendomini.engines.backend import Backend
from vendomini.engines.registry import backend_named, every_backend
from vendomini.entrypoints import AUTO
from vendomini.errors import ConfigError
from vendomini.identity import absolute
from vendomini.phase import Asked
from vendomini.planner.deployment import BACKENDS, VLLM
from vendomini.planner.deployment import Backend as Planned
from vendomini.prepare.facts import EngineFacts
from vendomini.schema import shown
from vendomini.serving import SCRIPTED, EngineSettings
from vendomini.store.records import Pin

PINNED = "it gave this group its first reply"
USE_VLLM = "VENDOMINI_USE_VLLM asks for it"

FOR_EVERY_BACKEND = frozenset({"backend"})
FOR_THE_PLANNER = frozenset({"policy", "gpu", "gpus"})
"""Settings that act on any engine which takes GPUs: they say which."""
FOR_REPLACEABLE = frozenset({"on_failure"})
"""And on any in whose place another may serve."""


def environment_of(
    engine: EngineSettings, backend: Backend, profile: Profile | None
) -> EngineEnvironment:
    """Where a backend's process finds its packages: the phase's word, else the profile's."""
    if engine.container is not None:
        return EngineEnvironment(python=engine.python, container=engine.container)
    if engine.python is not None:
        return EngineEnvironment(python=absolute(engine.python))
    if profile is None:
        return EngineEnvironment()
    return profile.engines.get(backend.name, EngineEnvironment())


def choose_backend(
    engine: EngineSettings,
    *,
    asks: Asked,
    pinned: Pin | None,
    profile: Profile | None,
    facts: EngineFacts,
) -> tuple[Backend | None, list[str]]:
    """The backend and why; None while `auto` cannot be decided."""
    if engine.backend != AUTO:
        return backend_named(engine.backend), []
    if pinned is not None:
        return backend_named(pinned.backend), [f"backend `{pinned.backend}`: {PINNED}"]
    if asks == "script":
        return backend_named(SCRIPTED), []
    if facts.wants_vllm:
        return backend_named(VLLM), [f"backend `{VLLM}`: {USE_VLLM}"]
    said: list[str] = []
    for backend in map(backend_named, BACKENDS):
        environment = environment_of(engine, backend, profile)
        lacks = facts.lacks(backend, environment)
        where = _where(environment, facts)
        if lacks == ():
            return backend, [*said, f"backend `{backend.name}`: its packages are in {where}"]
        if lacks is None and engine.python is None and environment != EngineEnvironment():
            return backend, [*said, f"backend `{backend.name}`: the profile names {where} for it"]
        said.append(
            f"not `{backend.name}`: what {where} has cannot be seen from here"
            if lacks is None
            else f"not `{backend.name}`: no {_listed(lacks)} in {where}"
        )
    return None, said


def unavailable(
    engine: EngineSettings, profile: Profile | None, facts: EngineFacts
) -> dict[Planned, str]:
    """Of the backends that the planner weighs, those whose packages are known to be missing where
    the workers run, each with why."""
    missing: dict[Planned, str] = {}
    for name in BACKENDS:
        if (why := missing_packages(backend_named(name), engine, profile, facts)) is not None:
            missing[name] = why
    return missing


def missing_packages(
    backend: Backend, engine: EngineSettings, profile: Profile | None, facts: EngineFacts
) -> str | None:
    """What a backend lacks where the workers run; None: nothing, as far as it is known."""
    environment = environment_of(engine, backend, profile)
    lacks = facts.lacks(backend, environment)
    return f"no {_listed(lacks)} in {_where(environment, facts)}" if lacks else None


def refuse_unready(
    name: str | None, engine: EngineSettings, profile: Profile | None, facts: EngineFacts
) -> None:
    """Raise `ConfigError` if a group's engine cannot start for want of packages, or if `auto`
    found none that can."""
    if name is None:
        last = backend_named(BACKENDS[-1])
        environment = environment_of(engine, last, profile)
        where = _where(environment, facts)
        if facts.lacks(last, environment) is None:
            raise ConfigError(
                f"`engine.backend` is `auto`, but what {where} has cannot be seen from here",
                hint=f"choose one: {' or '.join(f'engine.backend={name}' for name in BACKENDS)}",
            )
        raise ConfigError(
            f"`engine.backend` is `auto`, but neither vLLM nor transformers is in {where}",
            hint="; or ".join(backend_named(name).install for name in reversed(BACKENDS)),
        )
    backend = backend_named(name)
    environment = environment_of(engine, backend, profile)
    if lacks := facts.lacks(backend, environment):
        raise ConfigError(
            f"backend `{name}` needs {_listed(lacks)}, which {_where(environment, facts)} does "
            "not have",
            hint=backend.install or "install it there",
        )


def refuse_environments(profile: Profile) -> None:
    """Raise `ConfigError` for an environment of a backend that has none of its own."""
    for name, environment in profile.engines.items():
        backend = backend_named(name)
        for key in ("python", "container"):
            if getattr(environment, key) is not None and key not in backend.takes:
                raise ConfigError(
                    f"profile `{profile.name}`: `engines.{name}.{key}` does nothing, for "
                    f"`{name}` has no process of its own",
                    hint=f"remove `{name}` from `engines`",
                )


def check_all_act(engines: Iterable[tuple[str, EngineSettings]]) -> None:
    """Refuse a setting that acts on no group of a phase.

    `engines` are each group's backend, as it was planned at first, and settings. A phase that
    compares backends may have settings for one of them: only what acts nowhere is refused.
    """
    idle: dict[str, tuple[Backend, object]] = {}
    acting: set[str] = set()
    for name, engine in engines:
        backend = backend_named(name)
        if backend.stands_in:
            continue
        for field in fields(EngineSettings):
            value = getattr(engine, field.name)
            if value == field.default or _is_usual(field.name, value):
                continue
            if field.name in acts_on(backend):
                acting.add(field.name)
            else:
                idle.setdefault(field.name, (backend, value))
    for name, (backend, value) in idle.items():
        if name not in acting:
            raise ConfigError(
                f"`engine.{name}` is `{shown(value)}`, but has no effect with backend "
                f"`{backend.name}`",
                hint=_instead(name, backend),
            )


def acts_on(backend: Backend) -> frozenset[str]:
    """Which settings of `engine` act on it."""
    planned = FOR_THE_PLANNER if backend.planned_as is not None else frozenset()
    replaceable = FOR_REPLACEABLE if backend.fallback is not None else frozenset()
    return FOR_EVERY_BACKEND | planned | replaceable | backend.takes


# -- private -------------------------------------------------------------------------------


def _is_usual(name: str, value: object) -> bool:
    """One GPU along each dimension is what every backend does; so is to fail."""
    if name == "on_failure":
        return value == "fail"
    return name in ("tensor_parallel_size", "pipeline_parallel_size") and value == 1


def _instead(name: str, backend: Backend) -> str:
    if (own := backend.instead(name)) is not None:
        return own
    able = [each for each in every_backend() if name in acts_on(each)]
    users = [each.name for each in able if not each.stands_in] or [each.name for each in able]
    return f"remove it, or use {' or '.join(f'engine.backend={user}' for user in users)}"


def _where(environment: EngineEnvironment, facts: EngineFacts) -> str:
    if environment.container is not None:
        return f"container `{environment.container}`"
    return f"`{environment.python or facts.python}`"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
