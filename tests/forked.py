"""The program, loaded once and forked for each command: what loading takes is taken once.

`Forked` is the side of a test. Run as a file, this is the process that is forked: it loads all
that commands load, keeps to one thread, and gives each command a process of its own with the
given arguments, folder, environment and outputs. A command begins where a new interpreter would
have ended its imports, and ends as an interpreter does. It leaves when its stdin does, so with
the process that started it, however that ends.

What is the same for all commands of one such process, and so is no subject for it: the order of
sets of words (the hash seed), what the interpreter and modules read when they are loaded, and
modules that a command loads too late or needlessly. `Forked.can_give` says which environments it
can give; others need a new interpreter.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

READ_LATE = (
    "CI",
    "CUDA_VISIBLE_DEVICES",
    "FAKE_SLURM",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "PATH",
    "PYTEST_CURRENT_TEST",
    "SBATCH_",
    "SLURM_",
    "VENDOMINI_",
    "XDG_",
)
"""Variables, by how their names begin, that commands read when they are given, not when they are
loaded. A process that is loaded can take on these; of others it has what it began with."""


LOADED_LATE = ("typer._adapters", "rich._emoji_codes")
"""What typer and rich import when a command is given: half of what is left."""


class Forked:
    """Gives commands to one loaded program; a context. One at a time, and not from threads."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def can_give(self, env: Mapping[str, str]) -> bool:
        """Whether a command has this environment as if it were a new interpreter's."""
        differing = {name for name, _ in self._env.items() ^ dict(env).items()}
        return all(name.startswith(READ_LATE) for name in differing)

    def __call__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Give a command and wait for it. As `subprocess.run`, and what outlives it is not heard.

        Raises `subprocess.TimeoutExpired`, after which the command's process group is gone.
        """
        env = self._env if env is None else env
        assert self.can_give(env)
        argv = ["vendomini", *(str(argument) for argument in arguments)]
        with tempfile.TemporaryDirectory() as name:
            outputs = [Path(name, "stdout"), Path(name, "stderr")]
            request = {
                "argv": argv,
                "env": dict(env),
                "cwd": str(cwd or Path.cwd()),
                "outputs": [str(path) for path in outputs],
            }
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            pid = int(self._line())
            if not select.select([self._answers], [], [], timeout)[0]:
                os.killpg(pid, signal.SIGKILL)
                self._line()
                raise subprocess.TimeoutExpired(argv, timeout)
            code = int(self._line())
            # As text, as `subprocess` reads what its children print.
            out, err = (path.read_text() for path in outputs)
        return subprocess.CompletedProcess(argv, code, out, err)

    def _line(self) -> bytes:
        """The next line of its answers, byte by byte: nothing is read ahead of `select`."""
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(self._answers.fileno(), 1)
            assert more, "the loaded program is gone"
            line += more
        return line


# -- the process that is forked ----------------------------------------------------------------


def load() -> None:
    """Import what commands import, but for what starts threads: a fork has only one of them."""
    import vendomini.cli as commands

    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        importlib.import_module(module.name)
    for name in LOADED_LATE:
        with contextlib.suppress(ImportError):  # another version's way is as good, and slower
            importlib.import_module(name)
    (thread,) = os.listdir("/proc/self/task")
    assert int(thread) == os.getpid()


def serve() -> None:
    """Fork for each request on stdin. Returns in the forked processes only."""
    answers = os.dup(1)
    interrupted = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C for the tests is the tests' matter
    for line in sys.stdin.buffer:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            signal.signal(signal.SIGINT, interrupted)
            become(request)
            return
        with contextlib.suppress(OSError):  # the child does it, too: whoever is first
            os.setpgid(pid, pid)
        os.write(answers, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def become(request: Mapping[str, Any]) -> None:
    """Make this process the one of a command: group, folder, environment, inputs and outputs."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    outputs = [os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in request["outputs"]]
    for target, source in enumerate([os.open(os.devnull, os.O_RDONLY), *outputs]):
        os.dup2(source, target)
        os.close(source)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]


if __name__ == "__main__":
    load()
    serve()
    from vendomini.cli.main import main

    main()
