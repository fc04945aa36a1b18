"""The engines that are processes of ours: what one must say of itself, and how it is started.

Keys go by the environment: a command line can be read by everyone on the machine.
"""

import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from vendomini.chat import Engine
from vendomini.engines.backend import ON_EVERY_SERVER, Backend, Dialect, Say
from vendomini.engines.registry import backend_named
from vendomini.errors import EngineError
from vendomini.identity import absolute, is_local
from vendomini.serving import EngineSpec

KnownDevice: TypeAlias = Literal["cuda", "cpu"]

SERVED_NAME = "model"
"""What a server of ours calls its model in every request."""

MOST_SEQUENCES = 256
"""Running at once where nobody says; more wait in the engine's queue."""

ON_OWN_PROCESS = ON_EVERY_SERVER | {
    "dtype",
    "quantization",
    "max_model_len",
    "device",
    "kv_cache_memory_bytes",
    "python",
    "container",
}
"""Settings that act on every engine that is a process of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`environment` is added to the worker's own."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


class OwnServer(Backend):
    """A backend whose server is a process of ours, on a Unix socket.

    `dialect` is how it is talked to; `loading` and `loaded` are said before and after it starts.
    """

    dialect: ClassVar[Dialect]
    loading: ClassVar[str | None] = None
    loaded: ClassVar[str | None] = None

    says_attention: ClassVar[re.Pattern[str] | None] = None
    """How its log says by which attention it computes, in the first group; None: its metrics do,
    or nothing does."""

    def command(self, spec: EngineSpec, *, device: KnownDevice, socket: Path, key: str) -> Command:
        """How the server is started; ``--uds SOCKET`` is added to it."""
        raise NotImplementedError

    def open(self, spec: EngineSpec, *, log: Path, said: Say) -> Engine:
        from vendomini.engines.process import ProcessEngine

        return ProcessEngine(spec, log=log, said=said)


def own_server(spec: EngineSpec) -> OwnServer:
    backend = backend_named(spec.backend)
    assert isinstance(backend, OwnServer), f"`{spec.backend}` is no process of ours"
    return backend


def engine_command(
    spec: EngineSpec,
    *,
    device: KnownDevice,
    socket: Path,
    key: str,
    is_cached: bool = False,
    cpus: str | None = None,
) -> Command:
    """How to start the server of a spec whose backend is an `OwnServer`, listening on `socket`.

    `is_cached`: all of a hub's model is on this machine, so the hub need not be asked for it;
    nodes of a cluster often cannot. `cpus`: how many the job was given; None: outside one.
    Raises `EngineError` if a container is asked for and nothing here can run one.
    """
    command = own_server(spec).command(spec, device=device, socket=socket, key=key)
    argv = (*command.argv, "--uds", str(socket))
    # Sockets and files that servers leave in a temporary folder go with ours.
    environment = {**command.environment, "TMPDIR": str(socket.parent)}
    if device == "cpu" and cpus is not None:
        # Where a site does not bind jobs to their CPUs, torch would take the whole node.
        environment["OMP_NUM_THREADS"] = cpus
    if is_cached or is_local(spec.model):
        environment["HF_HUB_OFFLINE"] = "1"
    if spec.settings.container is not None:
        argv = (*_container(spec, device, socket), *argv)
    return Command(argv=argv, environment=environment)


def written(options: Mapping[str, object]) -> list[str]:
    """The words of a command line: what is None is left out."""
    return [
        word for name, value in options.items() if value is not None for word in (name, str(value))
    ]


def model_of(spec: EngineSpec) -> str:
    """The model as any working directory finds it."""
    return absolute(spec.model) if is_local(spec.model) else spec.model


def python_of(spec: EngineSpec) -> str:
    """The interpreter that the engine runs in."""
    if spec.settings.container is not None:
        return spec.settings.python or "python3"
    own = spec.settings.python
    return sys.executable if own is None else absolute(own)


def _container(spec: EngineSpec, device: KnownDevice, socket: Path) -> list[str]:
    """Run the rest inside an image, by whichever of the two clones is installed."""
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        raise EngineError(
            f"the engine's container `{spec.settings.container}` needs apptainer or singularity, "
            "and neither is on PATH here",
            hint="load its module in the job, or use `engine.python` instead",
        )
    folders = [str(socket.parent)]
    if is_local(spec.model):
        folders.append(absolute(spec.model))
    gpus = ["--nv"] if device == "cuda" else []
    assert spec.settings.container is not None
    return [program, "exec", *gpus, "--bind", ",".join(folders), spec.settings.container]
