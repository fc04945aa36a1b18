"""Reads a cluster profile."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vendomini.cluster import (
    MB_PER_GB,
    EngineEnvironment,
    GpuRequest,
    NodeKind,
    Profile,
    ResourceRule,
    Resources,
)
from vendomini.entrypoints import ENGINES
from vendomini.errors import ConfigError
from vendomini.hardware import ambiguous, gpu_named, gpu_of_site
from vendomini.identity import absolute
from vendomini.schema import conform
from vendomini.yamlfile import Document, load_yaml

MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(M|G|T)")
GB_PER_UNIT = {"M": 1 / MB_PER_GB, "G": 1.0, "T": 1024.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """Resources as they are written: memory with its unit."""

    gpus: int = field(default=0, metadata={"ge": 0})
    gpu_type: str | None = None
    cpus: int = field(default=1, metadata={"ge": 1})
    memory: str = "4G"
    minutes: int = field(default=60, metadata={"ge": 1})
    workers: int = field(default=1, metadata={"ge": 1})
    partition: str | None = None
    constraint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule(_Demand):
    model: str
    # A GPU job whose size nobody wrote down would be a guess: these have no default here.
    gpus: int = field(metadata={"ge": 0})
    cpus: int = field(metadata={"ge": 1})
    memory: str
    minutes: int = field(metadata={"ge": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nodes:
    """Nodes that are alike, as they are written: memory with its unit."""

    count: int = field(metadata={"ge": 1})
    gpus: int = field(metadata={"ge": 1})
    cpus: int = field(metadata={"ge": 1})
    memory: str
    gpu: str | None = None  # None: `gpu_type` says it
    gpu_type: str | None = None
    partition: str | None = None
    max_minutes: int | None = field(default=None, metadata={"ge": 1})
    constraint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A profile as it is written."""

    name: str | None = None  # None: the file's
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gpu_request: GpuRequest = "gres"
    gpus: dict[str, str] = field(default_factory=dict)
    nodes: tuple[_Nodes, ...] = ()
    max_gpus: int | None = field(default=None, metadata={"ge": 1})
    max_minutes: int | None = field(default=None, metadata={"ge": 1})
    worker_minutes: int = field(default=240, metadata={"ge": 10})
    array_parallelism: int | None = field(default=None, metadata={"ge": 1})
    signal_delay_s: int = field(default=120, metadata={"ge": 1, "le": 65535})  # Slurm's range
    heartbeat_s: float = field(default=30, metadata={"gt": 0})
    dead_after_s: float = field(default=180, metadata={"gt": 0})
    python: str | None = None
    engines: dict[str, EngineEnvironment] | None = None
    resources: tuple[_Rule, ...] = ()
    engineless: _Demand = _Demand(workers=4)


def default_profile() -> Profile:
    """What is used where no profile is named: the site's defaults, and no rule for any model."""
    return Profile(name="default", engineless=_resources(_Demand(workers=4), 4.0))


def load_profile(path: Path) -> Profile:
    """The profile in a YAML file.

    Raises `ConfigError` for each mistake that can be seen without a cluster, with its line.
    """
    document = load_yaml(path)
    written = conform(document.data, _File, source=document)
    if written.dead_after_s < 2 * written.heartbeat_s:
        raise ConfigError(
            f"{document.place('dead_after_s')}: `dead_after_s` is `{written.dead_after_s:g}`, less "
            f"than two beats of `heartbeat_s`, `{written.heartbeat_s:g}`",
            hint="a worker whose one beat is late would be taken for dead; use at least twice",
        )
    engines = written.engines or {}  # null: all of its lines are commented out
    for name in engines:
        if name not in ENGINES.own and ENGINES.value_of(name) is None:
            raise ConfigError(
                f"{document.place(f'engines.{name}')}: there is no engine `{name}`",
                hint=ENGINES.hint_for(name),
            )
    for key in ("max_minutes", "worker_minutes"):
        _check_minutes(getattr(written, key), key, written, document)
    gpus = {kind: _our_gpu(gpu, f"gpus.{kind}", document) for kind, gpu in written.gpus.items()}
    rules = tuple(
        ResourceRule(
            model=rule.model,
            resources=_read_demand(rule, f"resources[{index}]", written, document),
        )
        for index, rule in enumerate(written.resources)
    )
    return Profile(
        name=written.name if written.name is not None else path.stem,
        engineless=_read_demand(written.engineless, "engineless", written, document),
        resources=rules,
        partition=written.partition,
        account=written.account,
        qos=written.qos,
        constraint=written.constraint,
        exclude=written.exclude,
        gpu_request=written.gpu_request,
        gpus=gpus,
        nodes=tuple(
            _read_nodes(nodes, f"nodes[{index}]", written, gpus, document)
            for index, nodes in enumerate(written.nodes)
        ),
        max_gpus=written.max_gpus,
        max_minutes=written.max_minutes,
        worker_minutes=written.worker_minutes,
        array_parallelism=written.array_parallelism,
        signal_delay_s=written.signal_delay_s,
        heartbeat_s=written.heartbeat_s,
        dead_after_s=written.dead_after_s,
        python=written.python,
        engines={name: _placed(each) for name, each in engines.items()},
    )


# -- private -------------------------------------------------------------------------------


def _placed(environment: EngineEnvironment) -> EngineEnvironment:
    """Workers start in folders of their own: a path must lead to the same file from there."""
    python, container = environment.python, environment.container
    if python is not None and container is None:
        python = absolute(python)
    if container is not None and "://" not in container:
        container = absolute(container)
    return EngineEnvironment(python=python, container=container)


def _read_demand(demand: _Demand, key: str, written: _File, document: Document) -> Resources:
    """Resources with their memory as a number; raises `ConfigError` for what the types allow."""
    memory_gb = _memory_gb(demand.memory, f"{key}.memory", document)
    if demand.gpu_type and not demand.gpus:
        raise ConfigError(
            f"{document.place(f'{key}.gpu_type')}: `{key}.gpu_type` is `{demand.gpu_type}`, but "
            f"`{key}.gpus` is `0`",
            hint="set `gpus`, or remove `gpu_type`",
        )
    _check_minutes(demand.minutes, f"{key}.minutes", written, document)
    return _resources(demand, memory_gb)


def _memory_gb(text: str, key: str, document: Document) -> float:
    match = MEMORY.fullmatch(text)
    memory_gb = float(match[1]) * GB_PER_UNIT[match[2]] if match else 0.0
    if memory_gb <= 0:
        raise ConfigError(
            f"{document.place(key)}: `{key}` is `{text}`, which is no amount of memory",
            hint="write a number and its unit, M, G or T, such as `64G`",
        )
    return memory_gb


def _check_minutes(minutes: int | None, key: str, written: _File, document: Document) -> None:
    if minutes is not None and minutes * 60 <= written.signal_delay_s:
        raise ConfigError(
            f"{document.place(key)}: `{key}` is `{minutes}`, no longer than `signal_delay_s`, "
            f"`{written.signal_delay_s}` seconds",
            hint="a worker would be told to leave as soon as it starts: use more minutes, "
            "or a smaller `signal_delay_s`",
        )


def _read_nodes(
    nodes: _Nodes, key: str, written: _File, gpus: Mapping[str, str], document: Document
) -> NodeKind:
    """Nodes with their GPU by our own name; raises `ConfigError` where nothing says which."""
    _check_minutes(nodes.max_minutes, f"{key}.max_minutes", written, document)
    if nodes.gpu is not None:
        gpu = _our_gpu(nodes.gpu, f"{key}.gpu", document)
    elif nodes.gpu_type is None:
        raise ConfigError(
            f"{document.place(key)}: `{key}` says neither `gpu` nor `gpu_type`",
            hint="name the GPU of these nodes, such as `gpu: A100-80`",
        )
    elif nodes.gpu_type in gpus:
        gpu = gpus[nodes.gpu_type]
    else:
        gpu = _gpu_of_type(nodes.gpu_type, f"{key}.gpu_type", document)
    return NodeKind(
        count=nodes.count,
        gpu=gpu,
        gpus=nodes.gpus,
        cpus=nodes.cpus,
        memory_gb=_memory_gb(nodes.memory, f"{key}.memory", document),
        gpu_type=nodes.gpu_type,
        partition=nodes.partition,
        max_minutes=nodes.max_minutes,
        constraint=nodes.constraint,
    )


def _our_gpu(name: str, key: str, document: Document) -> str:
    """The GPU's name in our table; raises `ConfigError` if it is unknown or fits several."""
    try:
        return gpu_named(name).name
    except ConfigError as wrong:
        raise ConfigError(
            f"{document.place(key)}: `{key}` is `{name}`: {wrong}", hint=wrong.hint
        ) from None


def _gpu_of_type(gpu_type: str, key: str, document: Document) -> str:
    found, several = gpu_of_site(gpu_type), ambiguous(gpu_type)
    if found is not None and not several:
        return found.name
    why = "may be one of several GPUs" if several else "is the type of no GPU known here"
    choices = f", one of {', '.join(gpu.name for gpu in several)}" if several else ""
    raise ConfigError(
        f"{document.place(key)}: `{key}` is `{gpu_type}`, which {why}",
        hint=f"say which GPU it is with `gpu:` beside it{choices}",
    )


def _resources(demand: _Demand, memory_gb: float) -> Resources:
    return Resources(
        gpus=demand.gpus,
        gpu_type=demand.gpu_type,
        cpus=demand.cpus,
        memory_gb=memory_gb,
        minutes=demand.minutes,
        workers=demand.workers,
        partition=demand.partition,
        constraint=demand.constraint,
    )
