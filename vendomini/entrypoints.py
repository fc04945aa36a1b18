"""What packages bring by entry points: names, and the classes that they stand for.

A package says in its pyproject.toml what it brings, and nothing else is needed:

    [project.entry-points."vendomini.workloads"]
    icm = "my_lab.icm:ICM"

A class can also be named itself, as ``package.module:Class``. It is loaded when it is asked for.
"""

import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vendomini.errors import ConfigError

if TYPE_CHECKING:  # loading it takes longer than most that is done with names of our own
    from importlib.metadata import EntryPoint


CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""A class by its module, as ``package.module:Class``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of things that packages bring.

    `own` are the values of our own by name: they need no look at the installed packages, and work
    in a clone whose code is newer than its installation. `setting` is where a phase file names one,
    `what` what it is called, `cannot` how an error says that one is of no use, `document` where it
    is described.
    """

    group: str
    what: str
    setting: str
    cannot: str
    document: str
    own: Mapping[str, str] = field(default_factory=dict)
    reserved: tuple[str, ...] = ()  # words that mean something else where a name stands

    def values(self) -> dict[str, tuple[str, ...]]:
        """What each name stands for, as ``package.module:Class``; several where packages differ."""
        return {name: (value,) for name, value in self.own.items()} | {
            name: tuple(point.value for point in points)
            for name, points in registered(self.group).items()
            if name not in (*self.own, *self.reserved)
        }

    def value_of(self, name: str) -> tuple[str, str] | None:
        """The name by which it is known, and the class; None for a name that is not known.

        A class that has a name of its own is known by that. Raises `ConfigError` for a name that
        two packages bring.
        """
        if name in self.own:
            return name, self.own[name]
        known = self.values()
        if name in known:
            one, *others = known[name]
            if others:
                raise ConfigError(
                    f"two installed packages bring {self.what} `{name}`: `{one}` and `{others[0]}`",
                    hint=f"uninstall one, or name the class itself as {self.setting}",
                )
            return name, one
        if CLASS.fullmatch(name):
            named = [known_as for known_as, values in known.items() if values == (name,)]
            return (named[0] if named else name), name
        return None

    def hint_for(self, name: str) -> str:
        """What could have been meant by a name that is not known."""
        import difflib

        known = self.values()
        there_are = f"{', '.join(sorted(known))}; or name a class as package.module:Class"
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        if not nearest:
            return f"install a package that brings one: there are: {there_are}"
        return f"did you mean `{nearest[0]}`? There are: {there_are}"

    def made(
        self, name: str, value: str, *, base: type, lacks: Callable[[Any], Iterable[str]]
    ) -> Any:
        """An instance of the class ``package.module:Class``, which derives from `base`.

        `lacks` says in words what else a class has to have and does not. Raises `ConfigError` if
        it cannot be used, and why.
        """

        def refused(problem: str, hint: str) -> ConfigError:
            what = f"{self.what} `{name}`" + ("" if name == value else f" (`{value}`)")
            return ConfigError(f"{what} {self.cannot}: {problem}", hint=hint)

        module, _, attribute = value.partition(":")
        if module == "__main__":
            problem = "a script or a notebook has it, where no worker finds it"
            raise refused(problem, "put the class into a file of its own")
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # Its own imports may fail, too: then the package is there, and broken.
            problem = f"there is no module `{error.name}`"
            raise refused(problem, "install the package in this environment") from None
        except (Exception, SystemExit) as error:
            # Somebody else's code, while it is loaded, may do anything.
            problem = f"loading `{module}` fails with {type(error).__name__}: {error}"
            raise refused(problem, f"`{sys.executable} -c 'import {module}'` shows where") from None
        try:
            for part in attribute.split("."):
                found = getattr(found, part)
        except AttributeError:
            problem = f"`{module}` has no `{attribute}`"
            raise refused(problem, "name the class after the colon") from None
        if not (isinstance(found, type) and issubclass(found, base)):
            problem = f"it is no subclass of `{base.__module__}.{base.__name__}`"
            raise refused(problem, f"derive the class from it: {self.document}")
        try:
            missing = list(lacks(found))
        except NameError as error:  # of an annotation
            missing = [f"has settings of a type that is not there: {error}"]
        if missing:
            raise refused(f"it {missing[0]}", f"see the example in {self.document}")
        try:
            return found()
        except Exception as error:
            problem = f"it cannot be made without arguments: {type(error).__name__}: {error}"
            raise refused(problem, "let its settings say what it is told") from None


class Names:
    """The names of a kind as the choices of a setting: reserved words, those that are known, and
    any class. Looking at installed packages is left until a name is none of our own."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def __contains__(self, name: object) -> bool:
        if name in self._kind.reserved or name in self._kind.own:
            return True
        return isinstance(name, str) and bool(CLASS.fullmatch(name) or name in self._kind.values())

    def __iter__(self) -> Iterator[str]:
        return iter((*self._kind.reserved, *self._kind.values()))


AUTO = "auto"
"""The choice of the backend is the planner's."""

ENGINES = Kind(
    group="vendomini.engines",
    what="engine",
    setting="engine.backend",
    cannot="cannot be used",
    document="docs/engines.md",
    reserved=(AUTO,),
    own={
        "hf": "vendomini.engines.hf.backend:Transformers",
        "vllm": "vendomini.engines.vllm:VLLM",
        "openai": "vendomini.engines.openai:OpenAI",
        "scripted": "vendomini.engines.scripted:Scripted",
    },
)
WORKLOADS = Kind(
    group="vendomini.workloads",
    what="workload",
    setting="experiment.workload",
    cannot="cannot be played",
    document="docs/workloads.md",
)


def brought_by(kind: Kind, name: str, module: str) -> str:
    """The package that brings what has this name, with its version: ``my-lab 0.3.1``."""
    from importlib.metadata import packages_distributions, version

    points = registered(kind.group).get(name, [])
    if points and points[0].dist is not None:
        return f"{points[0].dist.name} {points[0].dist.version}"
    package = module.partition(".")[0]
    packages = packages_distributions().get(package, ())
    return f"{packages[0]} {version(packages[0])}" if packages else f"module {package}"


@functools.cache
def registered(group: str) -> Mapping[str, "list[EntryPoint]"]:
    """Every entry point of a group by name; several where packages have the same one."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        known = found.setdefault(point.name, [])
        if point.value not in [each.value for each in known]:
            known.append(point)
    return found
