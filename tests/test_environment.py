"""`tools/environment.py`: environments that are kept, and where their packages come from."""

import argparse
import json
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from tools.environment import (
    cuda_of_torch,
    kept_packages,
    left_to_do,
    newest_python,
    uv_environment,
    wanted,
)
from tools.environment import would_be_cuda as is_for_cuda


def asked(*packages: str, **changes: Any) -> dict[str, object]:
    values = {"project": True, "extra": [], "packages": list(packages), **changes}
    return wanted(argparse.Namespace(**values), changes.get("interpreter", sys.executable))


def test_uv_looks_where_pip_looks_and_its_own_settings_win() -> None:
    listed = (
        "global.index-url='https://mirror.example/simple'\n"
        "global.extra-index-url='https://one.example https://two.example'\n"
        "global.find-links='/old'\n"
        "global.quiet='1'\n"
        ":env:.find-links='/wheels\\n/more wheels'\n"
        ":env:.cert='/etc/ca.crt'\n"
    )
    assert uv_environment(listed, {"UV_INDEX": "https://own.example"}) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_FIND_LINKS": "/wheels,/more,wheels",  # pip, too, takes words
        "SSL_CERT_FILE": "/etc/ca.crt",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_COMPILE_BYTECODE": "1",
    }


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (("torch==2.13.0", "nvidia-cublas==13.0.2", "triton==3.5.0"), True),
        (("torch==2.13.0", "cuda-bindings==13.0.1"), True),
        (("torch==2.13.0+cpu", "triton==3.5.0"), False),
        ((), False),
    ],
)
def test_a_build_for_cuda_is_known_by_what_it_brings(
    added: tuple[str, ...], expected: bool
) -> None:
    printed = "Resolved 80 packages in 2s\nWould install 3 packages\n"
    printed += "".join(f" + {package}\n" for package in added)
    assert is_for_cuda(printed) is expected


def test_the_cuda_of_an_installed_torch_is_read_without_loading_it(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    assert cuda_of_torch(python) is None  # there is none
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (packages / "torch").mkdir()
    (packages / "torch" / "__init__.py").write_text("raise RuntimeError('loaded')")
    for said, expected in (("'13.0'", "13.0"), ("None", None)):
        (packages / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\ncuda = {said}\n")
        assert cuda_of_torch(python) == expected


def test_an_environment_is_kept_while_nothing_it_is_made_of_changes(tmp_path: Path) -> None:
    def left(want: dict[str, object]) -> str:
        key, packages = want["key"], want["packages"]
        assert isinstance(key, str)
        assert isinstance(packages, list)
        return left_to_do(kept_packages(tmp_path, key), packages)

    want = asked("torch==2.13.0", extra=["dev"])
    assert left(want) == "make"
    (tmp_path / "environment.json").write_text(json.dumps(want))
    assert left(want) == "nothing"
    assert left(asked()) == "nothing"  # all that is asked for is in it
    assert left(asked("torch==2.13.0", extra=["dev", "hf"])) == "add"
    assert left(asked("torch==2.14.0", extra=["dev"])) == "make"
    assert left(asked("torch==2.13.0", extra=["dev"], interpreter="/other")) == "make"
    (tmp_path / "environment.json").write_text("{")
    assert left(want) == "make"


def test_the_newest_python_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As pyenv has it: a file for a Python that it will not start.
    (tmp_path / "python3.29").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.29").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert newest_python() == sys.executable
    (tmp_path / "python3.28").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "python3.28").chmod(0o755)
    assert newest_python() == str(tmp_path / "python3.28")
