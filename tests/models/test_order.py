"""The files of `vendomini.models` call each other one way, as its docstring lists them."""

import re
from pathlib import Path

import vendomini.models

FILES = {path.stem: path for path in Path(vendomini.models.__file__).parent.glob("[!_]*.py")}
LISTED = re.findall(r"(?m)^    (\w+) {2,}", vendomini.models.__doc__ or "")
IMPORT = re.compile(r"(?m)^from vendomini\.models(?:\.(\w+))? import (.+)")


def test_the_list_has_every_file() -> None:
    assert sorted(LISTED) == sorted(FILES)


def test_a_file_calls_only_those_below_it() -> None:
    for place, name in enumerate(LISTED):
        imported = IMPORT.findall(FILES[name].read_text(encoding="utf-8"))
        called = {each for stem, names in imported for each in (stem or names).split(", ")}
        assert called <= set(LISTED[place + 1 :]), name
