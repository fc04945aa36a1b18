"""Follows `inherit` from file to file; of one that is no phase file nothing is shown.

Who writes `inherit: PATH` may name any file of the machine, by a slip or on purpose, and whoever
runs the phase reads the error: it may be in a log that others read. So until a file is known as a
phase file by a section at its top level, an error names its path and a line, and no content.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TypeAlias

from vendomini.config.draft import INHERIT, PARTS
from vendomini.errors import ConfigError
from vendomini.schema import shown
from vendomini.yamlfile import Document, NotRead, load_yaml, parse_yaml, text_of

SectionsOf: TypeAlias = Callable[[Sequence[Document]], AbstractSet[str]]
"""The sections, beside those of every phase file, that one may have which these inherit from."""

EVERYBODYS = frozenset({*PARTS, "experiment", "engine"})

TOP_KEY = re.compile(r"""^(["']?)([\w.+-]+)\1[ \t]*:(?=\s|$)""", re.MULTILINE)


def inherited(
    path: Path, *, shipped: Callable[[str], Path], sections_of: SectionsOf
) -> list[Document]:
    """The file and all it inherits, the farthest first.

    `shipped` is the file that comes with a name such as ``base``, or raises `ConfigError`; a file
    of that name beside the one that inherits wins. Raises `ConfigError` for a file that cannot be
    read or is no phase file, and an `inherit` that leads nowhere or round in a circle.
    """
    documents = [load_yaml(path)]
    seen = [os.path.realpath(path)]
    while (parent := documents[0].data.get(INHERIT)) is not None:
        child = documents[0]
        if not isinstance(parent, str) or not parent or "\0" in parent:
            raise ConfigError(
                f"{child.place(INHERIT)}: `inherit` is `{shown(parent)}`",
                hint="name one file, by its path relative to this one, or what is shipped: `base`, "
                "or a workload",
            )
        target = child.path.parent / parent
        if not target.suffix and os.sep not in parent and not target.is_file():
            try:
                target = shipped(parent)
            except ConfigError as error:
                raise ConfigError(
                    f"{child.place(INHERIT)}: `inherit: {parent}`: {error}", hint=error.hint
                ) from None
        if (real := os.path.realpath(target)) in seen:
            raise ConfigError(
                f"{child.place(INHERIT)}: `inherit: {parent}` leads back to a file that inherits "
                "from this one",
                hint="remove one `inherit` from the circle",
            )
        try:
            documents.insert(0, _parent(target, lambda: sections_of(documents)))
        except ConfigError as error:
            raise ConfigError(
                f"{child.place(INHERIT)}: `inherit: {parent}`: {error}", hint=error.hint
            ) from None
        seen.append(real)
    return documents


# -- private -------------------------------------------------------------------------------


def _parent(path: Path, sections: Callable[[], AbstractSet[str]]) -> Document:
    text = text_of(path)
    try:
        document = parse_yaml(text, path)
    except NotRead as error:
        if _is_phase_file((key[2] for key in TOP_KEY.finditer(text)), sections):
            raise
        raise _no_phase_file(path, error.line, "it cannot be read as one") from None
    if document.data and not _is_phase_file(document.data, sections):
        line = min(document.lines.values())
        raise _no_phase_file(path, line, "nothing at its top level is a section of one")
    return document


def _is_phase_file(keys: Iterable[str], sections: Callable[[], AbstractSet[str]]) -> bool:
    """By its top-level keys, which may be written with dots. Which workload it is for is asked
    only where that decides."""
    names = {key.partition(".")[0] for key in keys}
    return not names.isdisjoint(EVERYBODYS) or not names.isdisjoint(sections())


def _no_phase_file(path: Path, line: int | None, why: str) -> ConfigError:
    where = f"{path}" if line is None else f"{path}, line {line}"
    return ConfigError(
        f"{where}: no phase file: {why}",
        hint="name a YAML file with sections such as `experiment:`, `engine:` or `grid:`",
    )
