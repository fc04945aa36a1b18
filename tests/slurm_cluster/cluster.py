"""A private, real Slurm on this machine: several nodes, fake GPUs, accounting. For tests.

Everything lives in one directory and listens on ports of its own, so several such clusters
coexist. The daemons are our children, in the foreground: they are ended by process id, and
the kernel ends them if we die first. Jobs are not confined: all nodes share this machine.

By hand: ``python -m tests.slurm_cluster.cluster`` keeps one up until Ctrl-C.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.slurm_cluster import settings

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch")
"""What must be on PATH, Debian's administrators' folders included."""

SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

MAX_DIRECTORY = 60
"""Longest directory, in characters: a Unix socket's whole path must stay under 108."""


class ClusterError(Exception):
    """The private cluster did not come up, or did not do what a test waited for."""


def why_not_here() -> str | None:
    """Why no private cluster can run on this machine; None if one can."""
    if os.geteuid() != 0:
        return "a private Slurm needs root: munged and slurmd refuse anybody else here"
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]
    if missing:
        return (
            f"not installed: {', '.join(missing)} (tests/slurm_cluster/packages.sh installs them)"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A running daemon of the cluster."""

    name: str
    process: subprocess.Popen[bytes]


class SlurmCluster:
    """Use as a context manager: up inside, nothing left outside.

    `env` is what a command needs to talk to this cluster: this process's own environment
    without any outer Slurm's variables, and with ``SLURM_CONF``.
    """

    def __init__(self, *, max_array_size: int = 6) -> None:
        self.directory = _short_directory()
        self.conf = self.directory / "slurm.conf"
        self.env = {**_environment_without_slurm(), "SLURM_CONF": str(self.conf), "PATH": SEARCH}
        self.nodes = settings.NODES
        self.max_array_size = max_array_size
        self._daemons: dict[str, Daemon] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            error.add_note(self._last_words())
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def run(
        self,
        command: Sequence[str | Path],
        *,
        timeout: float = 60,
        check: bool = True,
        cwd: Path | None = None,
        extra_env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command against this cluster; raise `ClusterError` with its stderr if it fails."""
        done = subprocess.run(
            [str(part) for part in command],
            env={**self.env, **(extra_env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            words = " ".join(str(part) for part in command)
            raise ClusterError(
                f"`{words}` ended with {done.returncode}: {done.stderr or done.stdout}"
            )
        return done

    def wait_until(
        self, predicate: Callable[[], object], timeout: float = 60, *, what: str = "the condition"
    ) -> None:
        """Return once `predicate` is true; raise `ClusterError` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() > deadline:
                queue = self.run(["squeue", "--array", "--states=all"], check=False).stdout
                raise ClusterError(
                    f"{what} did not come true within {timeout:g} s; queue:\n{queue}"
                )
            time.sleep(0.1)

    def sbatch(self, *arguments: str | Path, timeout: float = 60) -> str:
        """Submit a job and return its id (an array's main id)."""
        return self.run(["sbatch", "--parsable", *arguments], timeout=timeout).stdout.strip()

    def states(self, job_id: str) -> dict[str, str]:
        """The state of each task of a job that the controller still remembers, by id as in 75_3."""
        done = self.run(
            [
                "squeue",
                "--noheader",
                "--array",
                "--states=all",
                f"--jobs={job_id}",
                "--format=%i %T",
            ],
            check=False,
        )
        rows = (line.split() for line in done.stdout.splitlines())
        return {row[0]: row[1] for row in rows if len(row) == 2}

    def kill_node(self, name: str) -> None:
        """End a node's slurmd with SIGKILL; the controller calls the node down after about 30 s."""
        daemon = self._daemons.pop(name)
        daemon.process.kill()
        daemon.process.wait(timeout=10)

    def cut_power(self, name: str) -> None:
        """End a node's slurmd and its jobs' processes with SIGKILL: nobody tells the controller."""
        running = ["squeue", "--noheader", f"--nodelist={name}", "--format=%A"]
        jobs = self.run(running).stdout.split()
        self.kill_node(name)
        mine = self._processes()
        steps = {pid for pid, (title, _) in mine.items() if title.startswith("slurmstepd")}
        # Those first that would tell the controller of the others' end.
        for pid in sorted(mine, key=lambda pid: pid not in steps):
            title, job = mine[pid]
            if job in jobs or (pid in steps and any(f"[{job}." in title for job in jobs)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def start_node(self, name: str) -> None:
        """Start a node's slurmd; returns at once."""
        self._spawn(name, ["slurmd", "-D", "-N", name, "-f", str(self.conf)])

    def idle_nodes(self) -> set[str]:
        """Names of the nodes that answer and run nothing."""
        done = self.run(
            ["sinfo", "--noheader", "--Node", "--responding", "--states=idle", "--format=%N"],
            timeout=20,
            check=False,
        )
        return set(done.stdout.split())

    def cancel_all(self) -> None:
        """Cancel every job and wait until none is left in the queue."""
        self.run(["scancel", "--quiet", "--user=root"], check=False)
        self.wait_until(
            lambda: not self.run(["squeue", "--noheader"], check=False).stdout.strip(),
            timeout=60,
            what="an empty queue",
        )

    def stop(self) -> None:
        """End everything that was started, by process id, and remove the directory."""
        if "slurmctld" in self._daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run(["scancel", "--quiet", "--user=root"], timeout=10, check=False)
        # Nodes first, so that the controller has nobody to wait for, then what it needs itself.
        for name in (
            *(node.name for node in self.nodes),
            "slurmctld",
            "slurmdbd",
            "mariadbd",
            "munged",
        ):
            daemon = self._daemons.pop(name, None)
            if daemon is not None:
                _end(daemon.process)
        for pid in self._left_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> None:
        ports = free_ports(2 + len(self.nodes))
        site = settings.Site(
            directory=self.directory,
            hostname=socket.gethostname().split(".")[0],
            controller_port=ports[0],
            accounting_port=ports[1],
            node_ports=tuple(ports[2:]),
            max_array_size=self.max_array_size,
            # Ids start at 1 in a new cluster, and submitit's files are named by id: a folder
            # left by an earlier cluster would be taken for a new job's results.
            first_job_id=int(time.time()) % 10_000_000 * 4 + 1000,
        )
        site.write()
        self._start_munge()
        self._start_accounting(site)
        self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
        self.wait_until(
            lambda: "is UP" in self.run(["scontrol", "ping"], check=False).stdout,
            what="the controller's answer",
        )
        for node in self.nodes:
            self.start_node(node.name)
        names = {node.name for node in self.nodes}
        self.wait_until(lambda: self.idle_nodes() == names, what=f"idle nodes {sorted(names)}")

    def _start_munge(self) -> None:
        home = self.directory / "munge"
        key = home / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        munge_socket = home / "munge.sock"
        self._spawn(
            "munged",
            [
                "munged",
                "--foreground",
                f"--socket={munge_socket}",
                f"--key-file={key}",
                f"--log-file={self.directory}/log/munged.log",
                f"--pid-file={self.directory}/run/munged.pid",
                f"--seed-file={home}/seed",
            ],
        )
        self._wait_for("munged", munge_socket.is_socket)

    def _start_accounting(self, site: settings.Site) -> None:
        data = self.directory / "mysql"
        self.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                "--auth-root-authentication-method=socket",
                "--skip-test-db",
            ],
            timeout=120,
        )
        database_socket = self.directory / "run" / "mysql.sock"
        self._spawn(
            "mariadbd",
            [
                "mariadbd",
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                f"--socket={database_socket}",
                f"--pid-file={self.directory}/run/mariadbd.pid",
                f"--log-error={self.directory}/log/mariadb.log",
                "--skip-networking",
                "--performance-schema=OFF",
                "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=64M",
                "--innodb-flush-log-at-trx-commit=0",
                "--skip-log-bin",
            ],
        )
        self._wait_for("mariadbd", database_socket.is_socket)
        self._spawn("slurmdbd", ["slurmdbd", "-D"], MYSQL_UNIX_PORT=str(database_socket))
        self._wait_for("slurmdbd", lambda: _listens(site.accounting_port))
        for words in settings.ACCOUNTS:
            self.run(["sacctmgr", "--immediate", *words])

    def _spawn(self, name: str, command: list[str], **extra_env: str) -> None:
        with (self.directory / "log" / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                # TERM when we die, whatever we die of.
                ["setpriv", "--pdeathsig", "TERM", "--", *command],
                env={**self.env, **extra_env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,  # Ctrl-C in the terminal is for the tests, not for them
            )
        self._daemons[name] = Daemon(name=name, process=process)

    def _wait_for(self, name: str, is_up: Callable[[], bool], timeout: float = 60) -> None:
        process = self._daemons[name].process
        deadline = time.monotonic() + timeout
        while not is_up():
            if process.poll() is not None:
                raise ClusterError(f"{name} ended with {process.returncode} while starting")
            if time.monotonic() > deadline:
                raise ClusterError(f"{name} did not come up within {timeout:g} s")
            time.sleep(0.05)

    def _left_over(self) -> list[int]:
        """Processes of this cluster's jobs, and Slurm's own of them, that outlived their slurmd."""
        return [
            pid
            for pid, (title, job) in self._processes().items()
            if job is not None or title.startswith(("slurm", "srun"))
        ]

    def _processes(self) -> dict[int, tuple[str, str | None]]:
        """Title and job of all processes that know this cluster, apart from ourselves."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
                title = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except OSError:
                continue  # it ended meanwhile, or is a zombie
            if f"SLURM_CONF={self.conf}".encode() in environ:
                jobs = [each[13:] for each in environ if each.startswith(b"SLURM_JOB_ID=")]
                found[int(entry.name)] = (title, jobs[0].decode() if jobs else None)
        return found

    def _last_words(self) -> str:
        """The ends of all logs, for whoever reads why the cluster did not come up."""
        parts = []
        for log in sorted((self.directory / "log").glob("*")):
            lines = log.read_text(errors="replace").splitlines()[-8:]
            if lines:
                parts.append("\n".join([f"--- {log.name}", *lines]))
        return "\n".join(parts)


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports on which nobody listens, below the range that the kernel gives out."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.sample(range(10_000, 30_000), 2000):
            listener = held.enter_context(socket.socket())
            try:
                listener.bind(("", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise ClusterError(f"no {count} free ports between 10000 and 30000")


def _short_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="vms-")).resolve()
    if len(str(directory)) > MAX_DIRECTORY:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="vms-", dir="/tmp"))
    directory.chmod(0o755)  # munged wants its socket within everybody's reach
    return directory


def _environment_without_slurm() -> dict[str, str]:
    outer = re.compile(r"(SLURM|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SACCT|SCANCEL|PMI|PMIX)_")
    return {name: value for name, value in os.environ.items() if not outer.match(name)}


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes], *, patience_s: float = 15) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)


def main() -> None:
    """Keep a cluster up until Ctrl-C."""
    reason = why_not_here()
    if reason is not None:
        sys.exit(reason)
    with SlurmCluster(max_array_size=1001) as cluster:
        print(f"export SLURM_CONF={cluster.conf}", flush=True)
        print("Ctrl-C ends the cluster and all its jobs.", file=sys.stderr)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
