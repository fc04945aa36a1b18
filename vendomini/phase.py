"""What a phase file says, as values: the settings every workload shares, and one run.

A workload adds its own sections beside `experiment` and `engine`; see `workloads/workload.py`.
Field metadata that the reader of phase files checks: ``ge``, ``gt``, ``le``, ``lt`` (bounds of
a number), ``choices`` (the only texts a union such as ``int | str`` takes), ``not_in_id`` (why it
defines no run), ``once`` (today's word by each that the value had: `schema/once.py`).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from vendomini.chat import MODEL
from vendomini.serving import EngineSettings

Scalar: TypeAlias = str | int | float | bool | None
Asked: TypeAlias = Literal["model", "script", "nobody"]
"""Whom a run asks: a language model, whatever answers (a script, where nothing else is named), or
nobody at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSettings:
    """Names the experiment and says how often each arm is repeated. Not part of a run's id,
    except `seed`."""

    name: str = "experiment"  # where a file sets none: the file's, without its suffix
    description: str = ""
    workload: str | None = None  # an entry point, or package.module:Class; None: the usual one
    phase: int | None = field(default=None, metadata={"ge": 1})  # which one of a study it is
    replications: int = field(default=1, metadata={"ge": 1})
    seed: int | None = None  # None means 0
    # The file that says beforehand what will be looked at; None: nobody said. It is not opened.
    preregistration: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model plays, and how its replies are drawn.

    `name` is a hub id or a local folder. `context_length` is the conversation window in
    tokens; ``auto`` is the largest window that all models of the phase share.
    """

    name: str = "meta-llama/Llama-3.1-8B-Instruct"
    revision: str | None = None
    context_length: int | str = field(default="auto", metadata={"ge": 1, "choices": ("auto",)})
    temperature: float = field(default=0.3, metadata={"ge": 0, "le": 2})
    top_p: float = field(default=1.0, metadata={"gt": 0, "le": 1})
    max_tokens_per_call: int = field(default=2000, metadata={"ge": 1})
    thinking: Literal["default", "off", "on"] = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One cell of the grid and one replication, resolved.

    `settings` is what the phase file says for this run, as nested plain values, with `fixed`,
    the grid and what follows from them applied; `arm` repeats the grid's part of it by dotted
    key. `seed` is the phase's, the same for every run of it. `asks` is None in records of before
    runs said whom they ask (`workloads.registry.asked_by`).
    """

    id: str
    workload: str
    workload_version: int
    seed: int
    replication: int
    arm: Mapping[str, Scalar]
    settings: Mapping[str, Any]
    in_grid: bool = True
    asks: Asked | None = None
    # The name of the file that asked for it last: no part of what it is.
    phase_file: str | None = field(default=None, compare=False)

    @property
    def model(self) -> ModelSettings:
        """The model that plays; raises `KeyError` for a workload that has none."""
        return model_settings(self.settings)

    @property
    def engine(self) -> EngineSettings:
        """What the phase file says of its engine."""
        return msgspec.convert(self.settings["engine"], EngineSettings)


def setting(settings: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, such as ``agent.model.name``; `KeyError` if there is none."""
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value


T = TypeVar("T")


def settings_of(settings: Mapping[str, Any], settings_type: type[T]) -> T:
    """A workload's sections of a run's settings, typed. They were checked when they were read;
    one that the settings are too old to have is at its default, an older word is today's."""
    from vendomini.schema import todays_words  # `status` reads runs, and none of their settings

    names = [field.name for field in fields(settings_type)]  # type: ignore[arg-type]
    settings = todays_words(settings, settings_type)
    return msgspec.convert({n: settings[n] for n in names if n in settings}, settings_type)


def model_settings(settings: Mapping[str, Any]) -> ModelSettings:
    """The model of a run's settings, typed; raises `KeyError` if they have none."""
    return msgspec.convert(setting(settings, MODEL), ModelSettings)


def todays_run(run: Run, settings_type: type) -> Run:
    """A run of a workload with such settings, in today's words: itself, where none had another."""
    from vendomini.schema import at_key, todays_value, todays_words

    settings = todays_words(run.settings, settings_type)
    arm = {key: todays_value(value, at_key(key, settings_type)) for key, value in run.arm.items()}
    if settings is run.settings and arm == run.arm:
        return run
    return replace(run, settings=settings, arm=arm)


def one_an_arm(runs: Iterable[Run]) -> list[Run]:
    """The first run of each arm: the runs of an arm share their settings."""
    first: dict[int, Run] = {}
    for run in runs:
        first.setdefault(id(run.settings), run)
    return list(first.values())


def has_model(settings: Mapping[str, Any]) -> bool:
    """Whether a workload's settings name a model."""
    section, _, name = MODEL.partition(".")
    return isinstance(inside := settings.get(section), Mapping) and name in inside


def without_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings but for what they say of the model, for comparing runs by what they play."""
    section, _, name = MODEL.partition(".")
    if not has_model(settings):
        return dict(settings)
    return {**settings, section: {**settings[section], name: None}}


ENGINELESS = "no engine"


def group_key(run: Run, asks: Asked) -> str:
    """The group a run belongs to: the runs that one loaded engine can serve.

    Runs that never ask share one group, whatever their model. Engine settings tell groups
    apart only where they are axes of the grid: the others are the same for the whole phase.
    """
    if asks == "nobody":
        return ENGINELESS
    model = run.model
    key = model.name + (f"@{model.revision}" if model.revision else "")
    axes = sorted((name, value) for name, value in run.arm.items() if name.startswith("engine."))
    return " ".join([key, *(f"{name}={value}" for name, value in axes)])


def pin_key(group: str) -> str:
    """A file name for what serves a group: readable, and different for each."""
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in group)
    return f"{safe[:80]}-{hashlib.sha256(group.encode()).hexdigest()[:8]}"
