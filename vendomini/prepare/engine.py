"""Which engine serves a group, on how many GPUs, and how it is opened: pure, with the reasons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vendomini.chat import EngineSpec
from vendomini.cluster import EngineEnvironment, Profile, Resources
from vendomini.errors import ConfigError
from vendomini.identity import absolute, is_local
from vendomini.models import ModelFacts
from vendomini.models.checks import (
    check_base_url,
    check_conversation,
    check_dtype,
    check_lengths,
    check_tensor_parallel,
    check_window,
)
from vendomini.models.spec import ModelSpec
from vendomini.phase import Asked, EngineSettings, Run, one_an_arm
from vendomini.planner.deployment import Backend
from vendomini.planner.pool import Pool
from vendomini.store.measurements import Measured

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "vllm": ("vllm",),
    "hf": ("torch", "transformers", "xgrammar", "vendomini"),
}
"""What must be importable where a backend's process runs."""

INSTALL = {
    "vllm": "give vLLM an environment of its own, `pip install vllm` there, and name its "
    "interpreter with engine.python=PATH",
    "hf": 'pip install "vendomini[hf]"',
}

PINNED = "it gave this group its first reply"
USE_VLLM = "VENDOMINI_USE_VLLM asks for it"

ModelName = tuple[str, str | None]
"""A model's name and revision, as the phase file has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What is known here and now of engines and models; what is missing is not known.

    `python` is the interpreter of the workers, and `workload` the module that it must have.
    `packages` are by interpreter those of `PACKAGES`, and that module, that it has; one that is not
    listed cannot be asked from here. `models` are those whose files
    are here, `sizes` what is known of every model's sizes, or why nothing is. `pins` are the
    backends that gave groups their first replies, by pin key. `gpus` is how many GPUs local
    workers may use, `pools` the nodes that engines may run on, `memory_gb` this machine's memory.
    `measured` are speeds seen before. `wants_vllm`: VENDOMINI_USE_VLLM asks for it.
    """

    python: str = "python"
    workload: str | None = None  # None: not asked
    packages: Mapping[str, frozenset[str]] = field(default_factory=dict)
    models: Mapping[ModelName, ModelFacts] = field(default_factory=dict)
    sizes: Mapping[ModelName, ModelSpec | ConfigError] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    pools: tuple[Pool, ...] = ()
    memory_gb: float | None = None  # None: not asked
    measured: tuple[Measured, ...] = ()
    wants_vllm: bool = False

    def size_of(self, name: ModelName) -> ModelSpec | None:
        """The model's sizes; None if they are not known."""
        found = self.sizes.get(name)
        return found if isinstance(found, ModelSpec) else None

    def lacks(self, backend: str, environment: EngineEnvironment) -> tuple[str, ...] | None:
        """Which packages of a backend an environment lacks; None if it cannot be asked here."""
        found = self.packages.get(environment.python or self.python)
        if environment.container is not None or found is None:
            return None
        return tuple(name for name in PACKAGES.get(backend, ()) if name not in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How one worker's engine lies on GPUs, and how many workers there may be.

    `dtype` is what these GPUs need in the place of the model's own; None: that.
    `attn_implementation` is the only one that they have for it; None: the engine finds the best.
    """

    gpus: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    most_workers: int | None  # None: as many as are asked for
    reasons: tuple[str, ...] = ()
    enable_expert_parallel: bool = False
    dtype: str | None = None
    attn_implementation: str | None = None


def environment_of(
    engine: EngineSettings, backend: str, profile: Profile | None
) -> EngineEnvironment:
    """Where a backend's process finds its packages: the phase's word, else the profile's."""
    if engine.container is not None:
        return EngineEnvironment(python=engine.python, container=engine.container)
    if engine.python is not None:
        return EngineEnvironment(python=absolute(engine.python))
    if profile is None or backend not in PACKAGES:
        return EngineEnvironment()
    return profile.engines.vllm if backend == "vllm" else profile.engines.hf


def choose_backend(
    engine: EngineSettings,
    *,
    asks: Asked,
    pinned: str | None,
    profile: Profile | None,
    facts: EngineFacts,
) -> tuple[str | None, list[str]]:
    """The backend and why; None while `auto` cannot be decided."""
    if engine.backend != "auto":
        environment = environment_of(engine, engine.backend, profile)
        lacks = facts.lacks(engine.backend, environment)
        if not lacks:
            return engine.backend, []
        where = _where(environment, facts)
        return engine.backend, [f"cannot be played as it is: no {_listed(lacks)} in {where}"]
    if pinned is not None:
        return pinned, [f"backend `{pinned}`: {PINNED}"]
    if asks == "script":
        return "scripted", []
    if facts.wants_vllm:
        return "vllm", [f"backend `vllm`: {USE_VLLM}"]
    said: list[str] = []
    for backend in ("vllm", "hf"):
        environment = environment_of(engine, backend, profile)
        lacks = facts.lacks(backend, environment)
        where = _where(environment, facts)
        if lacks == ():
            return backend, [*said, f"backend `{backend}`: its packages are in {where}"]
        if lacks is None and engine.python is None and environment != EngineEnvironment():
            return backend, [*said, f"backend `{backend}`: the profile names {where} for it"]
        said.append(
            f"not `{backend}`: {where} cannot be asked from here"
            if lacks is None
            else f"not `{backend}`: no {_listed(lacks)} in {where}"
        )
    return None, said


def unavailable(
    engine: EngineSettings, profile: Profile | None, facts: EngineFacts
) -> dict[Backend, str]:
    """The backends whose packages are known to be missing where the workers run, each with why."""
    missing: dict[Backend, str] = {}
    for backend in ("vllm", "hf"):
        environment = environment_of(engine, backend, profile)
        if lacks := facts.lacks(backend, environment):
            missing[backend] = f"no {_listed(lacks)} in {_where(environment, facts)}"
    return missing


def refuse_unready(
    backend: str | None, engine: EngineSettings, profile: Profile | None, facts: EngineFacts
) -> None:
    """Raise `ConfigError` if a group's engine cannot start for want of packages, or if `auto`
    found none that can."""
    if backend is None:
        environment = environment_of(engine, "hf", profile)
        where = _where(environment, facts)
        if facts.lacks("hf", environment) is None:
            raise ConfigError(
                f"`engine.backend` is `auto`, but {where} cannot be asked from here what it has",
                hint="say which: engine.backend=vllm or engine.backend=hf",
            )
        raise ConfigError(
            f"`engine.backend` is `auto`, but neither vLLM nor transformers is in {where}",
            hint=f"{INSTALL['hf']}; or {INSTALL['vllm']}",
        )
    if backend not in PACKAGES:
        return
    environment = environment_of(engine, backend, profile)
    if lacks := facts.lacks(backend, environment):
        raise ConfigError(
            f"backend `{backend}` needs {_listed(lacks)}, which {_where(environment, facts)} does "
            "not have",
            hint=INSTALL[backend],
        )


def check_model(
    members: Sequence[Run], engine: EngineSettings, backend: str | None, facts: EngineFacts
) -> None:
    """Refuse what a group's runs ask of their model and engine and neither can do."""
    model = members[0].model
    name = model.name
    window = window_of(members)
    check_lengths(engine, window)
    check_base_url(engine, backend or "auto")
    known = facts.models.get((name, model.revision))
    size = facts.size_of((name, model.revision))
    if backend in ("openai", "scripted"):
        return
    check_dtype(engine.dtype)
    allowed = size.max_model_len if size is not None and size.knows_context else None
    check_window(
        allowed if known is None else known.max_model_len,
        name,
        context_length=window,
        max_model_len=engine.max_model_len,
    )
    if known is None:
        return
    check_conversation(known, name, thinking=sorted(_thinking(members)))


def shape_of(
    engine: EngineSettings,
    backend: str,
    *,
    name: str,
    model: ModelFacts | None,
    resources: Resources | None,
    facts: EngineFacts,
) -> Shape:
    """How a group's engines lie on GPUs: those of the profile's rule, or this machine's.

    Raises `ConfigError` if the settings and the GPUs do not fit together.
    """
    here = resources is None
    own = 0 if engine.device == "cpu" else facts.gpus
    there_are = own if resources is None else resources.gpus
    if engine.device == "cuda" and not there_are:
        raise ConfigError(
            "`engine.device` is `cuda`, but "
            + ("this machine has no GPU" if here else f"the rule for `{name}` asks for none"),
            hint="use engine.device=auto" + ("" if here else ", or raise the rule's `gpus`"),
        )
    if backend != "vllm":
        tensor, pipeline = 1, 1
        gpus = there_are if not here else min(there_are, 1)
    else:
        pipeline = engine.pipeline_parallel_size or 1
        tensor = engine.tensor_parallel_size or (1 if here else max(1, there_are // pipeline))
        gpus = tensor * pipeline if there_are else 0
        _refuse_misfit(tensor, pipeline, there_are, here=here)
        if model is not None:
            check_tensor_parallel(model, name, tensor)
    if here:
        reasons = _local_reasons(engine, gpus, own)
    elif engine.device == "cpu" and gpus:
        reasons = ["`engine.device` is `cpu`: the GPUs it asks for stay idle"]
    else:
        reasons = []
    return Shape(
        gpus=gpus,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        most_workers=own // gpus if here and gpus else None,
        reasons=tuple(reasons),
    )


def real_spec(
    members: Sequence[Run],
    engine: EngineSettings,
    backend: Any,
    *,
    shape: Shape | None,
    profile: Profile | None,
    facts: EngineFacts,
) -> EngineSpec:
    """How to open the engine of a group that has a model. Without a shape it is elsewhere."""
    model = members[0].model
    environment = environment_of(engine, backend, profile)
    return EngineSpec(
        backend=backend,
        model=_opened_as(model.name, facts.models.get((model.name, model.revision))),
        revision=model.revision,
        dtype=engine.dtype or (shape.dtype if shape else None),
        quantization=engine.quantization,
        device=engine.device,
        gpus=shape.gpus if shape else 0,
        tensor_parallel_size=shape.tensor_parallel_size if shape else 1,
        pipeline_parallel_size=shape.pipeline_parallel_size if shape else 1,
        enable_expert_parallel=shape.enable_expert_parallel if shape else False,
        max_model_len=engine.max_model_len or window_of(members),
        concurrency=engine.concurrency,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        kv_cache_memory_bytes=engine.kv_cache_memory_bytes,
        block_size=engine.block_size,
        enable_prefix_caching=engine.enable_prefix_caching,
        enforce_eager=engine.enforce_eager,
        attn_implementation=engine.attn_implementation
        or (shape.attn_implementation if shape else None),
        reasoning_parser=engine.reasoning_parser,
        thinking="on" in _thinking(members),
        python=environment.python,
        container=environment.container,
        base_url=engine.base_url,
        start_timeout_s=engine.start_timeout_s,
        request_timeout_s=engine.request_timeout_s,
    )


def window_of(members: Sequence[Run]) -> int | None:
    """The longest conversation window of some runs, in tokens; None if it is still `auto`."""
    lengths = {run.model.context_length for run in one_an_arm(members)}
    numbers = [length for length in lengths if isinstance(length, int)]
    return max(numbers) if len(numbers) == len(lengths) else None


# -- private -------------------------------------------------------------------------------


def _thinking(members: Sequence[Run]) -> set[str]:
    return {run.model.thinking for run in one_an_arm(members)}


def _opened_as(name: str, model: ModelFacts | None) -> str:
    """The name that the engine finds the model by: a plain folder ``org--name`` of the cache is
    nothing that the hub's own program would look into."""
    is_plain = model is not None and model.folder.name == name.replace("/", "--")
    return str(model.folder) if model is not None and is_plain and not is_local(name) else name


def _refuse_misfit(tensor: int, pipeline: int, gpus: int, *, here: bool) -> None:
    needed = tensor * pipeline
    sizes = (
        f"`engine.tensor_parallel_size` `{tensor}` times `engine.pipeline_parallel_size` "
        f"`{pipeline}` is `{needed}` GPUs"
    )
    if here and 0 < gpus < needed:
        raise ConfigError(
            f"{sizes}, but this machine has `{gpus}`",
            hint="use fewer, or a cluster with --cluster",
        )
    if not here and gpus and needed != gpus:
        raise ConfigError(
            f"{sizes}, but the profile's rule gives each worker `{gpus}`",
            hint=f"make their product `{gpus}`, or change the rule's `gpus`",
        )


def _local_reasons(engine: EngineSettings, gpus: int, there_are: int) -> list[str]:
    if gpus:
        each = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
        return [f"each worker has {each} of the {there_are} of this machine"]
    why = "as `engine.device` says" if engine.device == "cpu" else "this machine has no GPU"
    return [f"the engine runs on the CPU: {why}"]


def _where(environment: EngineEnvironment, facts: EngineFacts) -> str:
    if environment.container is not None:
        return f"container `{environment.container}`"
    return f"`{environment.python or facts.python}`"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
