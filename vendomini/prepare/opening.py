"""Where a group's engine runs, and how it is opened: pure, with the reasons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from vendomini.cluster import Profile, Resources
from vendomini.engines.backend import Backend
from vendomini.engines.registry import asked, backend_named
from vendomini.errors import ConfigError
from vendomini.identity import is_local
from vendomini.models import ModelFacts
from vendomini.models.checks import (
    check_conversation,
    check_dtype,
    check_lengths,
    check_tensor_parallel,
    check_window,
)
from vendomini.models.spec import ModelSpec
from vendomini.phase import Run, one_an_arm
from vendomini.planner.deployment import HF, Deployment
from vendomini.planner.gates import attention, runtime_dtype
from vendomini.prepare.backends import environment_of
from vendomini.prepare.facts import EngineFacts
from vendomini.serving import EngineSettings, EngineSpec

EAGER = "eager"
"""The plain attention, which the engine is told to use where it has no other for a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where one worker's engine runs: its settings, with the GPUs decided, and how many workers
    there may be."""

    settings: EngineSettings
    most_workers: int | None  # None: as many as are asked for
    reasons: tuple[str, ...] = ()


def check_model(
    members: Sequence[Run], engine: EngineSettings, backend: Backend | None, facts: EngineFacts
) -> None:
    """Refuse what a group's runs ask of their model and engine and neither can do."""
    model = members[0].model
    name = model.name
    window = window_of(members)
    check_lengths(engine, window)
    if backend is not None:
        asked(backend, "check", partial(backend.check, engine))
        if backend.planned_as is None:
            return
    known = facts.models.get((name, model.revision))
    size = facts.size_of((name, model.revision))
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


def placed(
    engine: EngineSettings,
    backend: Backend,
    *,
    name: str,
    model: ModelFacts | None,
    resources: Resources | None,
    facts: EngineFacts,
) -> Placed:
    """A group's engines on GPUs: those of the profile's rule, or this machine's.

    Raises `ConfigError` if the settings and the GPUs do not fit together.
    """
    here = resources is None
    own = 0 if engine.device == "cpu" else facts.gpus
    there_are = own if resources is None else resources.gpus
    if engine.device == "cuda" and not there_are:
        raise ConfigError(
            "`engine.device` is `cuda`, but "
            + ("this machine has no GPU" if here else f"the rule for `{name}` asks for no GPU"),
            hint="use engine.device=auto" + ("" if here else ", or raise the rule's `gpus`"),
        )
    if "tensor_parallel_size" not in backend.takes:
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
        reasons = ["`engine.device` is `cpu`: the GPUs that its rule asks for stay idle"]
    else:
        reasons = []
    return Placed(
        settings=replace(
            engine,
            backend=backend.name,
            gpus=gpus,
            tensor_parallel_size=tensor,
            pipeline_parallel_size=pipeline,
        ),
        most_workers=own // gpus if here and gpus else None,
        reasons=tuple(reasons),
    )


def on_gpus(
    engine: EngineSettings, backend: Backend, model: ModelSpec, deployment: Deployment
) -> EngineSettings:
    """The settings with what the planner has decided, and with what these GPUs need in the place
    of the model's own: a dtype, or the only attention that there is for it."""
    splits = "tensor_parallel_size" in backend.takes
    dtype = runtime_dtype(model, deployment.gpu)
    is_other = dtype != model.dtype and model.dtype == "bfloat16"
    is_eager = deployment.backend == HF and attention(model, deployment.gpu, HF) == EAGER
    return replace(
        engine,
        backend=backend.name,
        gpus=deployment.gpus,
        tensor_parallel_size=deployment.tensor_parallel_size if splits else 1,
        pipeline_parallel_size=deployment.pipeline_parallel_size if splits else 1,
        dtype=engine.dtype or (dtype if is_other else None),
        attn_implementation=engine.attn_implementation or (EAGER if is_eager else None),
    )


def spec_of(
    members: Sequence[Run],
    settings: EngineSettings,
    *,
    profile: Profile | None,
    facts: EngineFacts,
    enable_expert_parallel: bool = False,
) -> EngineSpec:
    """How to open the engine of a group, given its settings with the GPUs decided.

    What no plan decides is filled in: its window, and where its packages are.
    """
    model = members[0].model
    backend = backend_named(settings.backend)
    environment = environment_of(settings, backend, profile)
    window = settings.max_model_len
    if backend.planned_as is not None:  # an engine elsewhere has the window that it has
        window = window or window_of(members)
    return EngineSpec(
        settings=replace(
            settings,
            max_model_len=window,
            python=environment.python,
            container=environment.container,
        ),
        model=_opened_as(model.name, facts.models.get((model.name, model.revision))),
        revision=model.revision,
        thinking="on" in _thinking(members),
        enable_expert_parallel=enable_expert_parallel,
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
