"""The life of an engine's process, with small programs in the place of a model server."""

import asyncio
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from vendomini.engines.child import Child, new_folder
from vendomini.engines.commands import Command
from vendomini.errors import EngineError

SERVER = """
    import os, signal, subprocess, sys, time
    from pathlib import Path

    home = Path(sys.argv[1])
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    orphan = subprocess.run(
        [sys.executable, "-c",
         "import subprocess, sys;"
         "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
         " start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"],
        capture_output=True, text=True, check=True,
    )
    home.joinpath("pids").write_text(f"{os.getpid()} {grandchild.pid} {orphan.stdout}")
    home.joinpath("ready").touch()
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        home.joinpath("ended in order").touch()
"""


def program(home: Path, text: str) -> Command:
    path = home / "program.py"
    path.write_text(textwrap.dedent(text))
    return Command(argv=(sys.executable, str(path), str(home)), environment={})


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(home: Path) -> list[int]:
    return [int(word) for word in (home / "pids").read_text().split()]


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def there(path: Path) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        return path.exists()

    return is_ready


class Started:
    """A child and what it has said."""

    def __init__(self, home: Path) -> None:
        self.said: list[str] = []
        self.folder = new_folder()
        self.child = Child(folder=self.folder, log=home / "engine.log", said=self.said.append)


def test_a_stopped_engine_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    async def live() -> Started:
        started = Started(tmp_path)
        await started.child.start(program(tmp_path, SERVER))
        await started.child.wait_until(there(tmp_path / "ready"), timeout_s=20)
        assert all(is_alive(pid) for pid in pids(tmp_path))
        await started.child.stop()
        await started.child.stop()
        return started

    started = asyncio.run(live())
    assert not any(is_alive(pid) for pid in pids(tmp_path))
    assert len(pids(tmp_path)) == 3
    assert (tmp_path / "ended in order").exists()
    assert not started.folder.exists()


def test_an_engine_ends_in_order_though_it_was_started_with_ctrl_c_blocked_and_then_stopped(
    tmp_path: Path,
) -> None:
    async def live() -> None:
        started = Started(tmp_path)
        await started.child.start(program(tmp_path, SERVER))
        await started.child.wait_until(there(tmp_path / "ready"), timeout_s=20)
        os.kill(pids(tmp_path)[0], signal.SIGSTOP)
        await started.child.stop()

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        asyncio.run(live())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert (tmp_path / "ended in order").exists()


def test_shared_memory_that_only_an_ended_engine_had_is_freed(tmp_path: Path) -> None:
    memory = [Path(tempfile.mkstemp(prefix="vendomini-test-", dir="/dev/shm")[1]) for _ in "ab"]
    for path in memory:
        path.write_bytes(bytes(4096))
    server = f"""
        import mmap, os, sys, time
        from pathlib import Path

        mapped = [mmap.mmap(os.open(path, os.O_RDWR), 4096) for path in {[*map(str, memory)]}]
        Path(sys.argv[1], "ready").touch()
        time.sleep(600)
    """

    async def live() -> None:
        started = Started(tmp_path)
        await started.child.start(program(tmp_path, server))
        await started.child.wait_until(there(tmp_path / "ready"), timeout_s=20)
        await started.child.stop()

    try:
        with memory[1].open("r+b") as file, mmap.mmap(file.fileno(), 4096):
            asyncio.run(live())
        assert [path.exists() for path in memory] == [False, True]
    finally:
        for path in memory:
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("victim", ["worker", "guard"])
def test_a_killed_worker_or_guard_takes_its_engine_along(tmp_path: Path, victim: str) -> None:
    command = program(tmp_path, SERVER)
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import asyncio, sys\n"
            "from pathlib import Path\n"
            "from tests.test_engine_child import Started, there\n"
            "from vendomini.engines.commands import Command\n"
            "async def live():\n"
            f"    home = Path({str(tmp_path)!r})\n"
            "    started = Started(home)\n"
            "    home.joinpath('folder').write_text(str(started.folder))\n"
            f"    await started.child.start(Command(argv={command.argv!r}, environment={{}}))\n"
            "    home.joinpath('guard').write_text(str(started.child._guard.pid))\n"
            "    await asyncio.sleep(600)\n"
            "asyncio.run(live())\n",
        ],
        cwd=Path(__file__).parent.parent,
    )
    try:
        wait_for(lambda: (tmp_path / "ready").exists() and (tmp_path / "guard").exists())
        leader, grandchild, orphan = pids(tmp_path)
        if victim == "worker":
            worker.kill()
            wait_for(lambda: not any(map(is_alive, (leader, grandchild, orphan))))
            wait_for(lambda: not Path((tmp_path / "folder").read_text()).exists())
        else:
            os.kill(int((tmp_path / "guard").read_text()), signal.SIGKILL)
            wait_for(lambda: not is_alive(leader))  # the kernel sees to it
    finally:
        worker.kill()
        worker.wait()
        shutil.rmtree((tmp_path / "folder").read_text(), ignore_errors=True)
        for pid in pids(tmp_path):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_signals_for_the_whole_step_do_not_reach_the_engine(tmp_path: Path) -> None:
    async def live() -> bool:
        started = Started(tmp_path)
        await started.child.start(program(tmp_path, SERVER))
        await started.child.wait_until(there(tmp_path / "ready"), timeout_s=20)
        leader = pids(tmp_path)[0]
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
            os.kill(leader, number)
        lives = await started.child.death_within(0.5) is None
        await started.child.stop()
        return lives

    assert asyncio.run(live())


def test_a_death_is_noticed_at_once_with_its_cause_and_its_orphans_are_ended(
    tmp_path: Path,
) -> None:
    async def live() -> str:
        started = Started(tmp_path)
        await started.child.start(program(tmp_path, SERVER))
        await started.child.wait_until(there(tmp_path / "ready"), timeout_s=20)
        watching = asyncio.create_task(started.child.died())
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        death = await asyncio.wait_for(watching, timeout=30)
        await started.child.stop()
        return str(death)

    assert "SIGKILL" in asyncio.run(live())
    assert not any(is_alive(pid) for pid in pids(tmp_path))


def test_a_start_that_fails_ends_with_the_root_cause(tmp_path: Path) -> None:
    failing = """
        print("loading")
        try:
            raise ValueError("the weights are torn")
        except ValueError as error:
            raise RuntimeError("Engine core initialization failed. See above.") from error
    """

    async def live() -> None:
        started = Started(tmp_path)
        try:
            await started.child.start(program(tmp_path, failing))
            await started.child.wait_until(there(tmp_path / "ready"), timeout_s=20)
        finally:
            await started.child.stop()

    with pytest.raises(EngineError, match=r"did not start: ValueError: the weights are torn"):
        asyncio.run(live())


def test_an_engine_that_hangs_is_given_up_at_its_deadline_with_its_last_words(
    tmp_path: Path,
) -> None:
    hanging = """
        import time
        print("[*] Using sdpa", flush=True)
        print("Loading safetensors checkpoint shards:  50% Completed", flush=True)
        time.sleep(600)
    """
    started: list[Started] = []

    async def live() -> None:
        started.append(Started(tmp_path))
        try:
            await started[0].child.start(program(tmp_path, hanging))
            await started[0].child.wait_until(there(tmp_path / "ready"), timeout_s=1.5)
        finally:
            await started[0].child.stop()

    with pytest.raises(EngineError, match=r"not ready after .* s; .* shards:\s+50%") as raised:
        asyncio.run(live())
    assert "engine.start_timeout_s" in raised.value.hint
    assert "[*] Using sdpa" in started[0].said


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def live() -> None:
        started = Started(tmp_path)
        try:
            await started.child.start(Command(argv=("/no/such/python",), environment={}))
            await started.child.wait_until(there(tmp_path / "ready"), timeout_s=20)
        finally:
            await started.child.stop()

    with pytest.raises(EngineError, match=r"/no/such/python: No such file"):
        asyncio.run(live())


def test_the_cause_of_an_end_is_not_what_an_earlier_engine_wrote_into_the_same_log(
    tmp_path: Path,
) -> None:
    async def cause(text: str, home: Path) -> str:
        home.mkdir()
        child = Child(folder=new_folder(), log=tmp_path / "engine.log", said=lambda text: None)
        try:
            await child.start(program(home, text))
            with pytest.raises(EngineError) as caught:
                await child.wait_until(there(home / "never"), timeout_s=30)
            return str(caught.value)
        finally:
            await child.stop()

    first = asyncio.run(cause("raise MemoryError('no room')", tmp_path / "first"))
    second = asyncio.run(cause("raise ValueError('no such model')", tmp_path / "second"))
    assert first == "the engine did not start: MemoryError: no room"
    assert second == "the engine did not start: ValueError: no such model"
    assert "no room" in (tmp_path / "engine.log").read_text()
