"""Packages of others, installed beside the program: by pip's rules, and without a network."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.product import ROOT
from tools.environment import uv_environment

PACKAGE = ROOT / "tests" / "workload_package"
"""A workload of its own, as somebody else would have it."""


def install(source: Path, into: Path) -> dict[str, str]:
    """Install the package in a folder into another one; the environment that finds it there.

    A copy is built, lest anything is left in the source.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = shutil.copytree(source, Path(name, "source"))
        _pip(Path(sys.executable), "--target", into, copy)
    return {**os.environ, "PYTHONPATH": str(into)}


def install_editable(source: Path, python: Path) -> None:
    """Install the package in a folder into an environment, as ``pip install -e`` does."""
    _pip(python, "--editable", source)


def _pip(python: Path, *arguments: str | Path) -> None:
    """By uv where it is, in a second."""
    uv = Path(sys.executable).with_name("uv")
    options: list[str | Path] = ["install", "--quiet", "--no-deps"]
    env: Mapping[str, str] = os.environ
    if importlib.util.find_spec("setuptools") is not None:
        options.append("--no-build-isolation")
    elif uv.exists():  # it is fetched, from where pip is told to look
        listed = _said([sys.executable, "-m", "pip", "config", "list"], os.environ)
        env = {**os.environ, **uv_environment(listed, dict(os.environ))}
    if uv.exists():
        _said([uv, "pip", *options, "--python", python, *arguments], env)
    else:
        _said([sys.executable, "-m", "pip", "--python", python, *options, *arguments], env)


def _said(command: list[str | Path], env: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=dict(env), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
