"""Reads a YAML file strictly: what the eye sees is what the program gets, or an error.

Scalars are read as YAML 1.2 has them: only ``true`` and ``false`` are booleans (so ``off``, ``on``,
``yes`` and ``no`` are text), ``1e-3`` is a number, dates are text. What YAML versions disagree
about (``12:30:00``, ``010``, ``0x1F``, ``1_000``) is refused, and so is a key written twice.
"""

import difflib
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from vendomini.errors import ConfigError

MOST_VALUES = 100_000
"""Aliases can make a few lines stand for billions of values; a phase has some hundreds."""

MOST_BYTES = 1_000_000
"""Of a file: a phase has some thousands, and a reader in Python takes 10 s for so many."""

# A key whose list follows, in brackets or line by line.
_LIST = re.compile(
    r"""^[ \t]*["']?([\w.+-]+)["']?[ \t]*:[ \t]*"""
    r"""(?:\[([^\[\]]*)\]|\n((?:[ \t]*- .*\n?)+))""",
    re.MULTILINE,
)

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_CLOCK, _RADIX, _NOT_FINITE = "clock", "radix", "not finite"

# In order; the first that matches the whole of a plain scalar names its kind.
_KINDS: tuple[tuple[str, str, str], ...] = (
    (_NULL, r"~|null|Null|NULL|", "~nN"),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_NOT_FINITE, r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    (_CLOCK, r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?", "-+0123456789"),
    (_RADIX, r"[-+]?(0[0-9_]+(\.[0-9_]*)?|0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+)"
             r"|[-+]?[0-9][0-9]*_[0-9_]*(\.[0-9_]*)?", "-+0123456789"),
    (_INT, r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    (_MERGE, r"<<", "<"),
)  # fmt: skip


_PATTERNS = {kind: re.compile(rf"(?:{pattern})\Z") for kind, pattern, _ in _KINDS}


class _Loader(yaml.SafeLoader):
    """Composes the nodes of a file, with the scalars' kinds of this module."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name and type)


for _kind, _, _first in _KINDS:
    for _letter in [*_first, ""] if _kind == _NULL else _first:
        _Loader.yaml_implicit_resolvers.setdefault(_letter, []).append((_kind, _PATTERNS[_kind]))


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this module or YAML 1.1 would read as something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own name and type)
        letter: [
            *_Loader.yaml_implicit_resolvers.get(letter, []),
            *yaml.SafeDumper.yaml_implicit_resolvers.get(letter, []),
        ]
        for letter in {*_Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML breaks lines at these, and folds the break when it reads it; only `"` escapes them.
    style = '"' if set(text) & set("\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar(_STR, text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    list,
    lambda dumper, items: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=True
    ),
)


class NotRead(ConfigError):
    """A text is no YAML that is read here, and its words may show some of it.

    `line` counts from 1; None: it is about no one line, or what was read has none.
    """

    def __init__(self, message: str, *, hint: str = "", line: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A YAML file: nested plain data, and where each of them is written."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[str, int]

    def line(self, key: str) -> int | None:
        """The line, from 1, of a dotted key (items of a list: ``key[0]``); None if not there."""
        return self.lines.get(key)

    def place(self, key: str) -> str:
        """``configs/demo.yaml, line 7``; for a key that is not there, that of what it is in."""
        line = self.line(key)
        while line is None and key:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
            line = self.line(key)
        return f"{self.path}" if line is None else f"{self.path}, line {line}"


def load_yaml(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping.

    Raises `ConfigError` if it is missing, unreadable, no regular file, larger than `MOST_BYTES` or
    not UTF-8, and `NotRead` if it is empty, not YAML, no mapping, has a key twice or a key that is
    no text, or a number that is not finite or reads differently in YAML 1.1 and 1.2.
    """
    return parse_yaml(text_of(path), path)


def parse_yaml(text: str, path: Path) -> Document:
    """As `load_yaml`, from text; `path` only names it in errors. Raises `NotRead`."""
    _refuse_long_lists(text, path)
    root = _compose(text, f"{path}")
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _NULL):
        raise NotRead(f"{path}: the file is empty", hint="write at least `inherit:` or one section")
    if not isinstance(root, yaml.MappingNode):
        raise NotRead(
            f"{path}: the top level is no mapping",
            hint="start with a section, such as `experiment:`",
            line=root.start_mark.line + 1,
        )
    builder = _Builder(f"{path}")
    data = builder.build(root, "", ())
    assert isinstance(data, dict)
    return Document(path=path, data=data, lines=builder.lines)


def _refuse_long_lists(text: str, path: Path) -> None:
    """By their text, before they are read."""
    if len(text) < 2 * MOST_VALUES:
        return
    for found in _LIST.finditer(text):
        count = found[2].count(",") + 1 if found[2] is not None else found[3].count("\n")
        if count > MOST_VALUES:
            line = text.count("\n", 0, found.start()) + 1
            raise NotRead(
                f"{path}, line {line}: `{found[1]}` has about {count:,} values, and a list here "
                f"has at most {MOST_VALUES:,}",
                hint="shorten the list, or split the phase",
                line=line,
            )


def parse_value(text: str, where: str, key: str) -> Any:
    """One value as a YAML file would have it, such as ``0.5``, ``[a, b]`` or ``null``.

    What begins with neither bracket, brace nor quote is one plain scalar to its end: a `#` or a
    colon in it starts nothing. `where` and `key` only name it in errors. Raises `ConfigError` as
    `load_yaml` does.
    """
    text = text.strip()
    builder = _Builder(where, with_lines=False)
    if text[:1] in tuple("[{'\""):
        root = _compose(text, where)
        assert root is not None
        return builder.build(root, key, ())
    kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.match(text)), _STR)
    return builder.scalar(yaml.ScalarNode(kind, text), key)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as YAML that this module, and any other YAML reader, reads back as it was."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def text_of(path: Path) -> str:
    """The text of a file, of which no error shows anything.

    Raises `ConfigError` if it is missing, unreadable, no regular file, larger than `MOST_BYTES` or
    not UTF-8.
    """
    try:
        mode = path.stat().st_mode
        # Asked before it is opened: opening a pipe waits for whoever writes to it, for ever.
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ConfigError(
                f"`{path}` is no regular file", hint="save what it gives, and name that file"
            )
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigError(
                f"`{path}` is larger than {MOST_BYTES:,} bytes, and no file that is read here is",
                hint="name a YAML file of settings",
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no file `{path}`", hint=_nearest_file(path)) from None
    except IsADirectoryError:
        raise ConfigError(f"`{path}` is a folder", hint="name a YAML file in it") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: the file is not UTF-8 text", hint="save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"`{path}` cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None


def _nearest_file(path: Path) -> str:
    folder = path.parent
    try:
        # Without the file itself, where it is a link that leads nowhere.
        names = sorted({entry.name for entry in os.scandir(folder)} - {path.name})
    except OSError:
        return f"there is no readable folder `{folder}` either"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean `{folder / near[0]}`?"
    files = [name for name in names if name.endswith((".yaml", ".yml"))]
    return f"YAML files there: {', '.join(files) or 'none'}"


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        problem = f"the character U+{error.character:04X} is not allowed"
        raise NotRead(
            f"{name}, line {line}: not YAML: {problem}", hint="remove the character", line=line
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise NotRead(
            f"{name}{where}: not YAML: {said}",
            hint="check indentation (spaces, no tabs), colons and quotes there",
            line=mark.line + 1 if mark else None,
        ) from None
    except RecursionError:
        raise NotRead(
            f"{name}: nested too deeply to be read", hint="check its brackets and indentation"
        ) from None


class _Builder:
    """Makes plain data of composed nodes, and notes the line of each key."""

    def __init__(self, name: str, *, with_lines: bool = True) -> None:
        self.name = name
        self.with_lines = with_lines
        self.lines: dict[str, int] = {}
        self.built = 0

    def fail(self, node: yaml.Node, text: str, hint: str = "") -> NoReturn:
        line = node.start_mark.line + 1 if self.with_lines else None
        where = "" if line is None else f", line {line}"
        raise NotRead(f"{self.name}{where}: {text}", hint=hint, line=line)

    def build(self, node: yaml.Node, key: str, above: tuple[yaml.Node, ...]) -> Any:
        """The value of `node`; `above` are the nodes that it is inside of."""
        self.built += 1
        if node in above:
            self.fail(node, f"`{key}` contains itself", "remove the alias in it that names it")
        if self.built > MOST_VALUES:
            self.fail(
                node,
                f"more than {MOST_VALUES} values, aliases counted each time",
                "use fewer aliases of aliases",
            )
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [
                self.item(item, f"{key}[{index}]", (*above, node))
                for index, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self.mapping(node, key, above)
        self.fail(
            node, f"`{key}` has the tag `{node.tag}`, which is not read here", "leave the tag out"
        )

    def item(self, node: yaml.Node, key: str, above: tuple[yaml.Node, ...]) -> Any:
        self.lines.setdefault(key, node.start_mark.line + 1)
        return self.build(node, key, above)

    def mapping(
        self, node: yaml.MappingNode, key: str, above: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = self.merge(value_node, key, (*above, node)) | merged
                continue
            name = self.key(key_node, key)
            full = f"{key}.{name}" if key else name
            line = key_node.start_mark.line + 1
            if name in own:
                first = f" (first in line {self.lines[full]})" if self.with_lines else ""
                self.fail(key_node, f"`{full}` is written twice{first}", "remove one of the two")
            self.lines[full] = line
            own[name] = self.build(value_node, full, (*above, node))
        # What a mapping says itself wins over what it merges in, wherever `<<` stands.
        return {**{n: v for n, v in merged.items() if n not in own}, **own}

    def merge(self, node: yaml.Node, key: str, above: tuple[yaml.Node, ...]) -> dict[str, Any]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        lines = dict(self.lines)
        for one in nodes:
            found = self.build(one, key, above)
            if not isinstance(found, dict):
                self.fail(
                    one,
                    f"`<<` in `{key or 'the top level'}` merges no mapping",
                    "name a mapping by its alias, such as `<<: *base`",
                )
            merged = found | merged
        self.lines = self.lines | lines  # a key's own line wins over that of what it replaces
        return merged

    def key(self, node: yaml.Node, inside: str) -> str:
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _STR:
                return str(node.value)
            if node.tag == _INT:  # a mapping by numbers; where none is wanted it is unknown
                return str(int(node.value))
            self.fail(
                node,
                f"the key `{node.value}` in `{inside or 'the top level'}` is no text",
                "put it in quotes",
            )
        self.fail(
            node,
            f"a key in `{inside or 'the top level'}` is a list or mapping, not text",
            "put it in quotes",
        )

    def scalar(self, node: yaml.ScalarNode, key: str) -> str | int | float | bool | None:
        text = str(node.value)
        if node.tag == _STR:
            return text
        pattern = _PATTERNS.get(node.tag)
        if node.style is not None or pattern is None or pattern.match(text) is None:
            self.fail(node, f"`{key}` has the tag `{node.tag}`", "leave the tag out")
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text.lower() == "true"
        if node.tag == _INT:
            # JSON readers and tables hold 64 bits; int() itself refuses thousands of digits.
            if len(text) <= 20 and -(2**63) <= int(text) < 2**63:
                return int(text)
            self.fail(
                node,
                f"`{key}` is `{text[:40]}`, which is too large a whole number",
                "whole numbers have at most 64 bits; a name made of digits goes in quotes",
            )
        if node.tag == _FLOAT and math.isfinite(float(text)):
            return float(text)
        if node.tag in (_FLOAT, _NOT_FINITE):
            self.fail(
                node, f"`{key}` is `{text}`, which is not a finite number", "write a finite number"
            )
        if node.tag == _MERGE:
            self.fail(node, f"`{key}` is `<<`", "put it in quotes")
        meant = "a time of day" if node.tag == _CLOCK else "a number in another notation"
        self.fail(
            node,
            f"`{key}` is `{text}`, which some YAML readers take for {meant}",
            f'put it in quotes ("{text}") if it is text, or write the decimal number',
        )
