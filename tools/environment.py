"""Make a virtual environment, or leave it as it is if it is the one that is wanted.

    python tools/environment.py .venv --project --extra dev --cpu-torch torch==2.13.0

An environment is kept by a key: a hash of the interpreter, the clone's place, pyproject.toml's
dependencies and this file. One with the same key, and at least the packages that are asked for, is
left alone; to one that lacks some they are added; one of another key is made anew. uv installs, by
the settings that pip has; where it cannot, pip does, and it is said.

Runs on a bare Python 3.11 or later, before anything is installed. The exit status is 3 where torch
would be a build for CUDA and one for the CPU is asked for: nothing is downloaded then.
"""

import argparse
import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before pip has looked
    sys.exit("error: Python 3.11 or later is needed, this is {}.{}".format(*sys.version_info[:2]))

import tomllib

ROOT = Path(__file__).resolve().parent.parent
KEPT = "environment.json"
UV = "uv>=0.9"

UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "find-links": "UV_FIND_LINKS",
}
"""pip's settings by uv's variables. Lists are of words in both, but `UV_FIND_LINKS` has commas."""

CUDA = ("nvidia-", "cuda-", "pytorch-triton")
"""How the names of packages begin that come with a build of torch for NVIDIA's GPUs."""

NO_CPU_STATUS = 3
NO_CPU_BUILD = """\
error: torch would be a CUDA build (some GB) where the tests want the one for the CPU
hint: let pip find the CPU build, for example with
hint:   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
hint: or put its wheel into a folder, and name that with PIP_FIND_LINKS"""


def wanted(arguments: argparse.Namespace, interpreter: str) -> dict[str, object]:
    """What an environment is kept by, and what is asked to be in it."""
    key = hashlib.sha256(Path(__file__).read_bytes())
    key.update(f"{sys.version} {sys.platform} {interpreter} {ROOT}".encode())
    if arguments.project:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        names = ("dependencies", "optional-dependencies", "scripts", "entry-points", "version")
        kept = {name: project["project"].get(name) for name in names}
        key.update(json.dumps([kept, project["build-system"]], sort_keys=True).encode())
    extras = [f"[{extra}]" for extra in arguments.extra]
    return {
        "key": key.hexdigest(),
        "packages": sorted([*(["."] if arguments.project else []), *extras, *arguments.packages]),
    }


def newest_python() -> str:
    """The newest interpreter on PATH, or of pyenv, that answers; never older than this one."""
    folders = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders += sorted(pyenv.glob("versions/*/bin"), reverse=True)
    for minor in range(30, sys.version_info.minor, -1):
        for folder in folders:
            python = folder / f"python3.{minor}"
            # pyenv has a file of that name for each Python it has, also for one it will not start.
            asked: list[str | Path] = [python, "-c", "import ensurepip, venv"]
            if python.is_file() and subprocess.run(asked, capture_output=True).returncode == 0:
                return str(python)
    return sys.executable


def kept_packages(folder: Path, key: str) -> set[str] | None:
    """What an environment has of what was asked for; None: there is none of this key."""
    try:
        kept = json.loads((folder / KEPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return set(kept["packages"]) if kept["key"] == key else None


def left_to_do(kept: set[str] | None, packages: list[str]) -> str:
    """``nothing``, ``make`` an environment, or ``add`` to it.

    Another version of a package that is there is no addition: the environment is made anew.
    """
    if kept is None:
        return "make"
    missing = set(packages) - kept
    if not missing:
        return "nothing"
    there = {package.partition("==")[0] for package in kept}
    return "make" if there & {package.partition("==")[0] for package in missing} else "add"


def uv_environment(listed: str, environ: dict[str, str]) -> dict[str, str]:
    """Variables that make uv look where pip looks; what is set for uv itself is left as it is.

    `listed` is what ``pip config list`` prints: ``global.index-url='https://...'``, and last
    ``:env:.find-links='/wheels'`` for variables, which win.
    """
    found = {
        # As pip does: the best of all indexes, and modules compiled once, not by each process
        # that may not write beside them.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_COMPILE_BYTECODE": "1",
    }
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        variable = UV_NAMES.get(name.rpartition(".")[2])
        if variable is not None and value:
            words = str(ast.literal_eval(value)).split()
            found[variable] = ("," if variable == "UV_FIND_LINKS" else " ").join(words)
    return {name: value for name, value in found.items() if name not in environ}


def would_be_cuda(resolved: str) -> bool:
    """Whether a list of packages, as ``uv pip install --dry-run`` prints it, is for a GPU."""
    added = [line.strip()[2:] for line in resolved.splitlines() if line.strip().startswith("+ ")]
    return any(name.startswith(CUDA) for name in added)


def cuda_of_torch(python: Path) -> str | None:
    """The version of CUDA an environment's torch was built for; None: none, or there is no torch.

    torch is not loaded: its file says so.
    """
    probe = (
        "import importlib.util, pathlib, runpy\n"
        "spec = importlib.util.find_spec('torch')\n"
        "file = spec and pathlib.Path(spec.origin).with_name('version.py')\n"
        "print((file and runpy.run_path(str(file)).get('cuda')) or '')"
    )
    done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.strip() or None


def install(folder: Path, arguments: argparse.Namespace) -> None:
    """Fill a fresh environment with what is asked for; ends the program if that cannot be."""
    python = folder / "bin" / "python"
    what = list(arguments.packages)
    if arguments.project:
        extras = ",".join(arguments.extra)
        what = ["--editable", f"{ROOT}[{extras}]" if extras else str(ROOT), *what]
    failure = _by_uv(python, what, arguments)
    if failure is not None:
        print(f"uv could not install ({failure}): pip does", file=sys.stderr)
        if arguments.cpu_torch and _pip_would_get_cuda(python, what):
            _refuse_cuda()
        _pip(python, "install", *what)
        if arguments.without:
            _pip(python, "uninstall", "--yes", *arguments.without)
    if arguments.cpu_torch and cuda_of_torch(python) is not None:
        _refuse_cuda()


def _refuse_cuda() -> NoReturn:
    print(NO_CPU_BUILD, file=sys.stderr)
    sys.exit(NO_CPU_STATUS)


def _by_uv(python: Path, what: list[str], arguments: argparse.Namespace) -> str | None:
    """None, or why uv could not."""
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "install", "-qq", UV], check=False).returncode != 0:
        return f"pip cannot install `{UV}`"
    listed = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True)
    environ = {**os.environ, **uv_environment(listed.stdout, dict(os.environ))}
    with tempfile.TemporaryDirectory() as name:
        excluded = Path(name) / "excluded.txt"
        excluded.write_text("".join(f"{package}\n" for package in arguments.without))
        command: list[str | Path] = [python.with_name("uv"), "pip", "install", "--python", python]
        command += ["--excludes", excluded, *what]
        backend: list[str] = []
        if arguments.cpu_torch:
            asked = subprocess.run(
                [*command, "--dry-run"], env=environ, capture_output=True, text=True, check=False
            )
            if asked.returncode != 0:
                return _last_line(asked.stderr)
            if would_be_cuda(asked.stderr):
                # PyPI's torch is for CUDA on most machines; PyTorch has an index of its own.
                backend = ["--torch-backend", "cpu"]
        done = subprocess.run(
            [*command, *backend, "--quiet"], env=environ, stderr=subprocess.PIPE, text=True
        )
    if done.returncode == 0:
        return None
    if backend:
        print(done.stderr, file=sys.stderr)
        _refuse_cuda()  # pip would only load the CUDA build
    return _last_line(done.stderr)


def _pip_would_get_cuda(python: Path, what: list[str]) -> bool:
    """Whether pip would install a torch for CUDA; False, too, where it cannot say."""
    command: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check"]
    command += ["install", "--dry-run"]
    done = subprocess.run(
        [*command, "--quiet", "--report", "-", *what], stdout=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        return False
    listed = json.loads(done.stdout)["install"]
    return any(each["metadata"]["name"].lower().startswith(CUDA) for each in listed)


def _pip(python: Path, *words: str) -> None:
    command: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check"]
    command += [words[0], "--quiet", *words[1:]]
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        sys.exit(f"error: pip could not {words[0]} {' '.join(words[1:])}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()


def main() -> None:
    """Make the environment that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("packages", nargs="*", help="requirements, as pip takes them")
    parser.add_argument("--project", action="store_true", help="this project, editable")
    parser.add_argument("--extra", action="append", default=[], help="of the project")
    parser.add_argument("--without", action="append", default=[], help="a package to leave out")
    parser.add_argument("--newest", action="store_true", help="by the newest Python that is here")
    parser.add_argument("--cpu-torch", action="store_true", help="refuse a torch for CUDA")
    arguments = parser.parse_intermixed_args()
    interpreter = newest_python() if arguments.newest else sys.executable
    folder, want = arguments.folder.absolute(), wanted(arguments, interpreter)
    key, packages = want["key"], want["packages"]
    assert isinstance(key, str)
    assert isinstance(packages, list)
    kept = kept_packages(folder, key)
    match left_to_do(kept, packages):
        case "nothing":
            return
        case "add" if kept is not None:
            print(f"adding to {arguments.folder} ...", file=sys.stderr, flush=True)
            want["packages"] = sorted({*kept, *packages})
        case _:
            print(f"making {arguments.folder} ...", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([interpreter, "-m", "venv", folder], check=True)
    install(folder, arguments)
    (folder / KEPT).write_text(json.dumps(want, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
