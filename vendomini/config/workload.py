"""What must be known of a workload to read its phase files, and which one a file names."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, TypeAlias, get_args, get_type_hints

from vendomini import shipped
from vendomini.config.draft import PARTS, written_last
from vendomini.config.translation import Translator
from vendomini.errors import ConfigError, UnknownWorkload
from vendomini.phase import Asked, ExperimentSettings
from vendomini.schema import alternatives, check_value, choices_of, find_setting, words_once
from vendomini.serving import EngineSettings
from vendomini.shipped import BASE
from vendomini.yamlfile import Document


class WorkloadType(Protocol):
    """What must be known of a workload to read its phase files."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def settings_type(self) -> type: ...

    @property
    def once_in_id(self) -> tuple[str, ...]: ...

    @property
    def translator(self) -> Translator | None: ...

    @property
    def base_file(self) -> Path | None: ...

    def derive_settings(self, settings: Any) -> Any: ...

    def asks(self, settings: Any) -> Asked: ...


WorkloadNamed: TypeAlias = Callable[[str | None], WorkloadType]
"""Finds a workload by its name, None for the usual one; raises `ConfigError` if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The section every phase file has, whatever its workload."""

    experiment: ExperimentSettings = field(default_factory=ExperimentSettings)


@functools.cache
def sections_type(settings_type: type) -> type:
    """The schema of a phase file's sections: everybody's, then the workload's."""
    hints = get_type_hints(settings_type)
    own = []
    for part in dataclasses.fields(settings_type):
        default = part.default_factory
        if default is dataclasses.MISSING:
            copy = field(default=part.default, metadata=part.metadata)
        else:
            copy = field(default_factory=default, metadata=part.metadata)
        own.append((part.name, hints[part.name], copy))
    shared = [
        ("experiment", ExperimentSettings, field(default_factory=ExperimentSettings)),
        ("engine", EngineSettings, field(default_factory=EngineSettings)),
    ]
    return dataclasses.make_dataclass("Sections", [*shared, *own], frozen=True, kw_only=True)


def inherited_by_name(name: str, *, workload_named: WorkloadNamed) -> Path:
    """The file that a phase inherits by name. Raises `ConfigError` if there is none."""
    if name == BASE:
        return Path(str(files("vendomini.data") / "base.yaml"))
    if name in (phases := shipped.phases()):
        return phases[name]
    try:
        file = workload_named(name).base_file
    except UnknownWorkload as error:
        raise ConfigError(
            "there is no such file beside it, and nothing of that name is shipped",
            hint=f"name a file by its path, a shipped phase, `{BASE}`, or a workload that ships "
            f"one: {error.hint}",
        ) from None
    if file is None:
        raise ConfigError(
            f"workload `{name}` ships no file to inherit from", hint=f"write `inherit: {BASE}`"
        )
    return file


def workload_of(
    documents: Sequence[Document], overrides: Sequence[str], workload_named: WorkloadNamed
) -> WorkloadType:
    """The workload that a phase file names; it decides which words the file may use.

    Raises `ConfigError` for one that there is not, or whose phase files nobody could read.
    """
    key = "experiment.workload"
    name, where = written_last(documents, overrides, *key.split("."))
    try:
        workload = workload_named(check_value(Named, key, name, where))
    except ConfigError as error:
        said = str(error) if str(error).startswith(where) else f"{where}: {error}"
        raise ConfigError(said, hint=error.hint) from None
    own = {part.name for part in dataclasses.fields(workload.settings_type)}
    for taken in sorted(own & {"experiment", "engine", *PARTS}):
        raise ConfigError(
            f"{where}: workload `{workload.name}` cannot be played: it has a section `{taken}`, "
            "which every phase file has for itself",
            hint="give the section another name: see the example in docs/workloads.md",
        )
    _refuse_words(workload, where)
    return workload


def sections_named(
    documents: Sequence[Document], overrides: Sequence[str], workload_named: WorkloadNamed
) -> frozenset[str]:
    """The workload's sections that a file which these inherit from may have, in older words, too.

    Without a section `experiment` that file names no workload: it is for theirs. Raises as
    `workload_of` does.
    """
    workload = workload_of(documents, overrides, workload_named)
    older = frozenset() if workload.translator is None else workload.translator.sections
    return older.union(part.name for part in dataclasses.fields(workload.settings_type))


# -- private -------------------------------------------------------------------------------


def _refuse_words(workload: WorkloadType, where: str) -> None:
    """Refuse older words of a setting that today's could not be told from."""
    cannot = f"{where}: workload `{workload.name}` cannot be played"
    for key, words in words_once(workload.settings_type).items():
        if not isinstance(words, Mapping) or not all(
            isinstance(word, str) for pair in words.items() for word in pair
        ):
            raise ConfigError(
                f"{cannot}: `once` of its setting `{key}` is `{words!r}`",
                hint="it is a mapping of older words to today's, both texts",
            )
        found = find_setting(workload.settings_type, key, where)
        choices = _choices(found.hint, found.metadata)
        for old, today in words.items():
            if old in choices or today in words or (choices and today not in choices):
                raise ConfigError(
                    f"{cannot}: `once` of its setting `{key}` says that `{old}` means `{today}`",
                    hint="an older word is no choice any more, and what it means is one",
                )


def _choices(hint: Any, metadata: Mapping[str, Any]) -> list[Any]:
    """What a setting's value may be, or each item of it."""
    inside = [arg for each in alternatives(hint) for arg in get_args(each) if arg is not Ellipsis]
    items = [choice for arg in inside for choice in choices_of(arg, {})]
    return [*choices_of(hint, metadata), *items]
