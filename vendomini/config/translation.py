"""What a workload may do to older phase files: put them into today's words, each with a note."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vendomini.yamlfile import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A file in today's words; no note: it was."""

    document: Document
    notes: tuple[str, ...]


class Translator(Protocol):
    """Understands the words of older phase files of one workload. Raises `ConfigError` for what
    never meant anything."""

    @property
    def sections(self) -> frozenset[str]:
        """Top-level keys of older files, also those that are refused by name."""
        ...

    def translate(self, document: Document, *, parts: Sequence[str]) -> Translation:
        """A phase file, or a file that one inherits. `parts` are the top-level keys whose values
        have dotted keys: ``fixed`` and ``grid``."""
        ...

    def translate_setting(
        self, key: str, value: Any, where: str, *, is_axis: bool
    ) -> tuple[str | None, Any, tuple[str, ...]]:
        """An override: key, value, notes. No key: it never acted and is left out. `where` is the
        place named in notes and errors."""
        ...

    def remark(self, documents: Sequence[Document]) -> str:
        """What should be noted of files of which something was translated, as they were written,
        the farthest inherited first; empty if nothing."""
        ...


def leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of nested mappings with its dotted key; an empty mapping is a value."""
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
