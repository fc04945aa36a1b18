"""Writes the map of docs/architecture.md: each module by its room, with the first sentence that it
says of itself. ``python -m tools.make_map`` after a module was added, moved or described anew.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vendomini"
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: python -m tools.make_map -->\n", "<!-- end of modules -->"


def modules(package: Path = PACKAGE) -> str:
    """A heading a room and a line a module, as Markdown. Raises `ValueError` for a module that
    says nothing of itself."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package)
        room = "/".join(where.parts[:-1])
        if said := _first_sentence(path, is_room=path.name == "__init__.py"):
            name = room.rpartition("/")[2] if path.name == "__init__.py" else path.stem
            line = f"- `{name}`: {said}" if path.name != "__init__.py" else _heading(room, said)
            rooms.setdefault(room, []).append(line)
    # A room of one's own comes first: what stands at the top is below all rooms.
    return "\n".join(line for room in sorted(rooms) for line in _ordered(rooms[room])) + "\n"


def written(document: str) -> str:
    """The document with its map made anew."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{modules()}{END}{after}"


def _heading(room: str, said: str) -> str:
    return f"\n**{room or 'vendomini'}/** {said}\n"


def _ordered(lines: list[str]) -> Iterator[str]:
    yield from sorted(lines, key=lambda line: line.startswith("- "))


def _first_sentence(path: Path, *, is_room: bool) -> str:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if said is None:
        if is_room:
            return ""
        raise ValueError(f"{path} says nothing of itself")
    return " ".join(said.split("\n\n")[0].split())


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
