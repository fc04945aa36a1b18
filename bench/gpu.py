"""What one GPU does, beside what the planner says of it: ``python -m bench.gpu [--minutes 10]``.

For whoever has a GPU. Needs torch and transformers, downloads nothing and ends in time; without a
GPU ``--tiny`` rehearses all of it on the CPU. Our engine and the estimates need msgspec, a small
wheel.

Models have the catalogue's shapes and random 16-bit weights, made on the device. A cell is one
figure of a model in one way of running it; it fails alone, and the results are written after each:

- create: GiB of the weights, and the seconds in which they were made on the device.
- first token: seconds from a prompt of one sequence to its first token, median of some.
- next turn: the same of a prompt that goes on from one which was answered before, by some tokens.
- decode: tokens a second of so many sequences under way, which is under_way / median step; with the
  step's 10th and 90th percentile, and `prompts_s`, in which all their prompts together were read.
- load: seconds from the start of a process to its first token (`disk`: files that were just
  written, so the page cache is warm), or until it can be asked (`vllm`: its weights are dummies, so
  the planner's seconds of reading are left out).

`sdpa` and the other kernels are transformers' `generate`, greedy, with its own cache. `engine` is
our hf engine, its scheduler, its arena and its sampler on sdpa; `engine_unkept` is the same without
the prefixes it keeps, as with `engine.enable_prefix_caching: false`. Neither has its server about
it. vLLM is asked step by step in its process, without its server; steps count while all sequences
write.

`peak_gib` and `reserved_gib` are torch's, without the CUDA context; `taken_gib`, of vLLM, is what
the card has free less than before. The planner's peak is weights, activations of one prompt and KV
caches (`planner/memory.py`); it reads a batch's prompts one after another. `ratio` is measured over
planned.
"""

import argparse
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GIB = 1024**3
MODELS = "Qwen/Qwen3-8B", "Qwen/Qwen3-32B"
FLASH = "flash_attention_2", "flash_attention_3", "flash_attention_4"
ENGINE = "engine", "engine_unkept"
WAYS = "sdpa", *FLASH, "sdpa_flash", "eager"  # sdpa_flash: sdpa with torch's flash kernel alone
STAND_IN = "H100"  # whose estimates the rehearsal shows
SPARE_S = 5.0  # of the minutes: to write the file and to hand the card back
SLOW_FLOPS, SLOW_BYTES_S, SLOW_LAYER_S = 1e14, 1e12, 1e-3  # of a slow card: does a cell still fit?
MARK = "@cell "  # begins a child's line that is an outcome; all others are an engine's log
TINY: dict[str, dict[str, Any]] = {
    f"tiny/{kind}": {
        "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "num_hidden_layers": layers, "intermediate_size": 128, "vocab_size": 512,
        "max_position_embeddings": 512, "tie_word_embeddings": tied, "torch_dtype": "bfloat16",
        "model_type": kind, "architectures": [f"{kind.capitalize()}ForCausalLM"],
    }
    for kind, layers, tied in (("qwen3", 2, False), ("llama", 3, True))
}  # fmt: skip

Figures = dict[str, float]
Ask = Callable[..., list[float]]
"""Of sequences under way, tokens of each prompt and of each reply: seconds to the first tokens of
all, and of each further step. Of our engine also, `known`: so many of each prompt's tokens are of
one that was answered before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """In tokens, sequences and steps. The first of `prompts` is that of decode, too."""

    prompts: tuple[int, ...] = (1024, 8192)
    under_way: tuple[int, ...] = (1, 8, 64)
    warm: int = 8  # steps that are not counted: kernels are chosen, memory is taken
    steps: int = 64
    repeats: int = 5  # of a first token
    turn: int = 128  # new tokens of a next turn

    @property
    def new(self) -> int:
        return 1 + self.warm + self.steps

    @property
    def longest(self) -> int:
        return max(self.prompts) + 2 * self.new


REHEARSED = Sizes(prompts=(24, 384), under_way=(1, 2, 4), warm=2, steps=6, repeats=2, turn=8)


@dataclass(slots=True, kw_only=True)
class Cell:
    """`outcome` is ``measured`` or, with a reason, ``out of memory``, ``failed``, ``cannot run``,
    ``no time``, ``stopped``; ``not reached`` until it is one of these."""

    model: str
    way: str
    what: str
    prompt: int = 0
    under_way: int = 1
    outcome: str = "not reached"
    reason: str = ""
    figures: Figures = field(default_factory=dict)
    planner: Figures = field(default_factory=dict)
    ratio: Figures = field(default_factory=dict)


class Failed(Exception):
    """A cell's outcome and its reason."""


class Stop(BaseException):
    """The time is up or somebody ended the program: no `Exception`, as Ctrl-C is none."""


def cells_of(models: Sequence[str], sizes: Sizes) -> list[Cell]:
    """Every cell, the most valuable first: the time may be up before the last."""
    first, *longer = sizes.prompts

    def cells(model: str, *ways: str) -> Iterator[Cell]:
        for way in ways:
            if way not in (*WAYS, *ENGINE):
                yield Cell(model=model, way=way, what="create" if way == "weights" else "load")
            for prompt in sizes.prompts if way in ENGINE else ():
                yield Cell(model=model, way=way, what="next turn", prompt=prompt)
            if way not in ("weights", "disk", "engine_unkept"):
                yield Cell(model=model, way=way, what="first token", prompt=first)
                for under_way in sizes.under_way:
                    yield Cell(
                        model=model, way=way, what="decode", prompt=first, under_way=under_way
                    )
                for prompt in longer:
                    yield Cell(model=model, way=way, what="first token", prompt=prompt)

    most, *others = models
    found = list(cells(most, "weights", "sdpa", *ENGINE, *WAYS[1:]))
    for model in others:
        found += cells(model, "weights", "sdpa", *ENGINE)
    found += cells(most, "vllm", "disk")
    for model in others:
        found += cells(model, *WAYS[1:], "vllm")
    return found


class Device:
    """Where it runs, and all that differs there. Without `cuda` the CPU, for the rehearsal, where
    the peak is the process's since it began, not a cell's."""

    def __init__(self, cuda: Any = None) -> None:
        self._cuda, self._is = cuda, cuda and cuda.get_device_properties(0)
        self.name = "cuda:0" if cuda else "cpu"
        self.dtype = "float16" if cuda and self._is.major < 8 else "bfloat16"

    def now(self) -> float:
        """The clock's seconds once the device has done all it was given."""
        if self._cuda:
            self._cuda.synchronize()
        return time.perf_counter()

    def clear(self) -> None:
        """Hand back what nobody holds, and begin a new peak."""
        gc.collect()
        if self._cuda:
            self._cuda.empty_cache()
            self._cuda.reset_peak_memory_stats()

    def peak(self) -> Figures:
        if not self._cuda:
            return {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB}
        peaks = self._cuda.max_memory_allocated(), self._cuda.max_memory_reserved()
        return {"peak_gib": peaks[0] / GIB, "reserved_gib": peaks[1] / GIB}

    def free(self) -> int:
        """Bytes that nobody has taken."""
        if self._cuda:
            return int(self._cuda.mem_get_info()[0])
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def facts(self) -> dict[str, Any]:
        if not self._cuda:
            return {"card": None}
        of, memory = self._is, round(self._is.total_memory / GIB, 2)
        capability = {"compute_capability": f"{of.major}.{of.minor}"}
        return {"card": of.name, "cards": self._cuda.device_count(), "gib": memory, **capability}


# -- models and what is asked of them --------------------------------------------------------


def settled(config: Mapping[str, Any]) -> Any:
    """transformers' object of a catalogue's config; what is null there is the type's default."""
    from transformers import AutoConfig

    given = {name: value for name, value in config.items() if value is not None}
    return AutoConfig.for_model(given.pop("model_type"), **given)


def make(config: Mapping[str, Any], device: str, dtype: str) -> Any:
    """The model with random weights, made where it stays: transformers fills it there, and
    computes buffers such as RoPE's. On ``meta`` it has only shapes."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    how = {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa"}
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(settled(config), **how)
    model.generation_config = GenerationConfig()  # no end token: all that is asked for is written
    return model.eval()


@contextlib.contextmanager
def asking_by(
    way: str, model: Any, device: Device, late: Callable[[], bool] = lambda: False
) -> Generator[Ask, None, None]:
    """Ask in this way while in the context. Raises where the model or the machine cannot."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    model.set_attn_implementation("sdpa" if way in (*ENGINE, "sdpa_flash") else way)
    if way in ENGINE:
        before = ALL_ATTENTION_FUNCTIONS["sdpa"]  # the engine takes its place, and holds the model
        try:
            yield asking_engine(model, device, keeps=way == "engine", late=late)
        finally:
            AttentionInterface.register("sdpa", before)
        return
    pinned = way == "sdpa_flash"
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION) if pinned else contextlib.nullcontext():
        yield asking(model, device, late)


def asking(model: Any, device: Device, late: Callable[[], bool] = lambda: False) -> Ask:
    """Ask with random prompts. A stopping criterion looks at the clock: it is called when a step's
    tokens are there, where `generate` waits for the device anyway. Once `late`, it ends them."""
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList

    def ask(under_way: int, prompt: int, new: int) -> list[float]:
        def note(input_ids: Any, scores: Any, **_: Any) -> Any:
            times.append(device.now())
            return torch.full((under_way,), late(), device=device.name)

        ids = torch.randint(model.config.vocab_size, (under_way, prompt), device=device.name)
        how = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "use_cache": True}
        given = {"attention_mask": torch.ones_like(ids)}
        given["generation_config"] = GenerationConfig(max_new_tokens=new, **how)
        times = [device.now()]
        with torch.inference_mode():
            model.generate(ids, stopping_criteria=StoppingCriteriaList([note]), **given)
        return [end - begin for begin, end in pairwise(times)]

    return ask


def asking_engine(model: Any, device: Device, *, keeps: bool, late: Callable[[], bool]) -> Ask:
    """Ask our hf engine's steps. What a server would do about them is left out."""
    import torch

    from vendomini.engines.hf.attention import Reader
    from vendomini.engines.hf.generation import Generation
    from vendomini.engines.hf.kept import Arena
    from vendomini.engines.hf.loading import Loaded
    from vendomini.engines.hf.sampling import Drawing, Row

    words, reader = model.config.vocab_size, Reader(model, "sdpa")
    no_text: dict[str, Any] = {"tokenizer": None, "grammars": None, "end_ids": (), "pad_id": 0}
    no_text |= {"special_ids": frozenset(), "thinks": False, "think_ids": frozenset()}

    def answer(generation: Any, prompts: Sequence[list[int]], new: int) -> list[float]:
        def told(outcome: Drawing | Exception) -> None:
            if isinstance(outcome, Exception):
                failed.append(outcome)

        failed: list[Exception] = []
        rows = [
            Row(prompt=each, max_tokens=new, temperature=0.0, top_p=1.0, ends=False)
            for each in prompts
        ]
        tasks = [generation.task(row, told) for row in rows]
        generation.waiting.extend(tasks)
        times = [device.now()]
        while (generation.waiting or generation.running) and not late():
            generation.step()
            if failed:
                raise failed[0]
            written = min(len(task.drawing.tokens) for task in tasks)
            times += [device.now()] * (written + 1 - len(times))
        return [end - begin for begin, end in pairwise(times)]

    def ask(under_way: int, prompt: int, new: int, known: int = 0) -> list[float]:
        reader.arena = Arena()
        room = 2 * under_way * (prompt + new + 64)  # those under way, and as many at rest
        loaded = Loaded(
            model=model, reader=reader, device=device.name, dtype=device.dtype, attention="sdpa",
            think_end=None, vocabulary=words, max_model_len=room, kv_tokens=room, **no_text,
        )  # fmt: skip
        generation = Generation(loaded, max_rows=under_way, keeps=keeps)
        prompts = torch.randint(words, (under_way, prompt)).tolist()
        if known:
            answer(generation, [each[:known] for each in prompts], 1)
        return answer(generation, prompts, new)

    return ask


def asking_vllm(engine: Any, params: Callable[[int], Any], *, words: int, room: int) -> Ask:
    """Ask vLLM. Its sequences start one after another, so they are given more to write: the first
    must not end before the last has written all that counts. `room`: tokens of its KV cache."""
    import torch

    def ask(under_way: int, prompt: int, new: int) -> list[float]:
        spare = (
            under_way * prompt // 2048 if new > 1 else 0
        )  # steps of reading; 2048: on small cards
        if under_way * (prompt + new + spare) > room:
            raise Failed("cannot run", f"the KV cache holds {room} tokens")
        written: dict[str, int] = {}
        prompts = torch.randint(words, (under_way, prompt)).tolist()
        times = [time.perf_counter()]
        for place, ids in enumerate(prompts):
            asked = f"{times[0]}-{place}", {"prompt_token_ids": ids}, params(new + spare)
            engine.add_request(*asked)
        while engine.has_unfinished_requests():
            for output in engine.step():
                written[output.request_id] = len(output.outputs[0].token_ids)
            least = min(written.values()) if len(written) == under_way else 0
            times += [time.perf_counter()] * (least + 1 - len(times))
        return [end - begin for begin, end in pairwise(times)][:new]

    return ask


def measured(cell: Cell, ask: Ask, sizes: Sizes) -> Figures:
    """The figures of a first token or of decode; of the former one more is asked for first."""
    if cell.what in ("first token", "next turn"):
        given: tuple[int, ...] = 1, cell.prompt, 1
        if cell.what == "next turn":
            given = 1, cell.prompt + sizes.turn, 1, cell.prompt
        asked = [ask(*given) for _ in range(1 + sizes.repeats)][1:]
        if not all(asked):
            raise Failed("no time", "the time was up")
        first = [times[0] for times in asked]
        return {"first_token_s": median(first), "least_s": min(first), "most_s": max(first)}
    times = ask(cell.under_way, cell.prompt, sizes.new)
    steps = times[1 + sizes.warm :]
    if len(steps) < 2:
        raise Failed("no time", f"only {len(times)} tokens were written in time")
    step, tenths = median(steps), quantiles(steps, n=10, method="inclusive")
    found = {"tokens_s": cell.under_way / step, "step_s": step, "prompts_s": times[0]}
    found |= {
        "step_s_p10": tenths[0],
        "step_s_p90": tenths[-1],
        "tokens": cell.under_way * len(times),
    }
    return found


def attempt(work: Callable[..., Any], *given: Any) -> Any:
    """What `work` returns, or a `Failed`: whatever goes wrong is the outcome of some cells only,
    be it the GPU's driver or a package that is half installed."""
    import torch

    try:
        return work(*given)
    except Failed as failed:
        return Failed(*failed.args)  # without the traceback, which holds tensors
    except Exception as error:
        full = isinstance(error, torch.OutOfMemoryError | MemoryError)
        said = one_line(f"{type(error).__name__}: {error}")
        return Failed("out of memory" if full else "failed", said)


def one_line(text: str) -> str:
    """The first line, short, its paths cut to their last part: they name people and machines."""
    first = next(iter(text.strip().splitlines()), "")
    return re.sub(r"(?<![\w./:])/(?:[^\s/:'\"`]+/)+", "", first)[:240]


# -- processes of their own ------------------------------------------------------------------


def child(task: Mapping[str, Any]) -> Generator[tuple[int, Any], None, None]:
    """Places of the task's cells and their outcomes, as a process of this file tells them. It is
    ended in any case, with all it has started. Raises `Failed` with the cause, at its own end."""
    from vendomini.engines.cause import root_cause

    here = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if not task["cuda"]:
        here |= {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1"}
    with subprocess.Popen(
        [sys.executable, __file__, "--child", json.dumps({**task, "began": time.time()})],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env={**os.environ, **here}, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        log: list[str] = []
        try:
            for said in process.stdout:
                if said.startswith(MARK):
                    place, figures, failed = json.loads(said.removeprefix(MARK))
                    yield place, Failed(*failed) if failed else figures
                log.append(said)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    raise Failed("failed", one_line(root_cause("".join(log)) or "it ended without a word"))


def serve(task: Mapping[str, Any]) -> None:
    """The child's side: load, tell when that was done, measure the further cells."""
    cells, sizes = [Cell(**each) for each in task["cells"]], Sizes(**task["sizes"])
    if task["way"] == "vllm":
        vllm = importlib.import_module("vllm")
        engine = vllm.LLM(
            model=task["folder"], load_format="dummy", skip_tokenizer_init=True,
            generation_config="vllm", dtype=task["dtype"], max_model_len=sizes.longest,
            max_num_seqs=max(sizes.under_way), enable_prefix_caching=False,
            enforce_eager=not task["cuda"],
        ).llm_engine  # fmt: skip
        cache = engine.vllm_config.cache_config
        room = cache.num_gpu_blocks * cache.block_size
        started = {"start_s": time.time() - task["began"], "kv_tokens": room}

        def params(new: int) -> Any:
            how = {"temperature": 0, "ignore_eos": True, "detokenize": False}
            return vllm.SamplingParams(max_tokens=new, **how)

        ask = asking_vllm(engine, params, words=task["words"], room=room)
    else:
        import torch
        from transformers import AutoModelForCausalLM

        device = Device(torch.cuda if task["cuda"] else None)
        how = {"dtype": getattr(torch, device.dtype), "attn_implementation": "sdpa"}
        placed = task["cuda"] and importlib.util.find_spec("accelerate") is not None
        if placed:
            how["device_map"] = device.name  # as the engine loads
        begin = time.time()
        model = AutoModelForCausalLM.from_pretrained(task["folder"], **how)
        if not placed:
            model.to(device.name)
        device.now()
        started = {"imports_s": begin - task["began"], "read_s": time.time() - begin}
        ask = asking(model, device)
        ask(1, 16, 1)
        started["start_s"] = time.time() - task["began"]
    for number, cell in enumerate(cells):
        found = attempt(measured, cell, ask, sizes) if number else started
        outcome = [None, found.args] if isinstance(found, Failed) else [found, None]
        print(f"\n{MARK}{json.dumps([number, *outcome])}", flush=True)


# -- the planner -----------------------------------------------------------------------------


def planners_gpu(machine: Mapping[str, Any]) -> tuple[Any, str]:
    """The planner's card, or None, and a word on whose estimates these are."""
    try:
        from vendomini.hardware import gpu_named, gpu_of_site

        importlib.import_module("vendomini.planner.speed")
    except ImportError as error:
        return None, f"none: `{error.name}` is not installed, which the planner imports"
    if machine["card"] is None:
        return gpu_named(STAND_IN), f"of {STAND_IN}, a stand-in: what is measured here is no GPU"
    gpu = gpu_of_site(machine["card"], round(machine["gib"] * 1024))
    return gpu, f"of {gpu.name}" if gpu else "none: the planner's table has no such card"


def planned(cell: Cell, config: Mapping[str, Any], gpu: Any, sizes: Sizes) -> Figures:
    """What the planner says of the cell's figures."""
    from vendomini.models.config_json import spec_of_config
    from vendomini.planner.deployment import Deployment
    from vendomini.planner.gpu_memory import memory_use
    from vendomini.planner.speed import prefill_s, step_s
    from vendomini.planner.startup import READ_GB_S, startup_s

    is_vllm, new = cell.way == "vllm", sizes.new if cell.what == "decode" else 1
    turn = sizes.turn if cell.what == "next turn" else 0
    spec = spec_of_config(config, id=cell.model, weight_bytes=None, source="the catalogue")
    lies = Deployment(
        backend="vllm" if is_vllm else "hf",
        gpu=gpu,
        max_model_len=sizes.longest if is_vllm else cell.prompt + turn + new,
        max_num_seqs=max(sizes.under_way),
        flash_attention=cell.way in FLASH,
    )
    use = memory_use(spec, lies)
    if cell.what == "create":
        return {"weights_gib": use.weights / GIB, "parameters": spec.params}
    if cell.what == "load":
        start = startup_s(spec, lies)
        if not is_vllm:
            return {"start_s": start}
        start -= spec.weight_bytes / (READ_GB_S * 1e9)
        tokens = use.kv * sizes.longest // use.kv_bytes_per_sequence
        taken = (use.total - use.reserve) / GIB
        return {"start_s": start, "kv_tokens": tokens, "taken_gib": taken}
    cached = cell.prompt if turn and cell.way == "engine" else 0
    read = prefill_s(spec, lies, cell.prompt + turn - cached, cached=cached)
    found = {"first_token_s": read}
    if cell.what == "decode":
        middle = cell.prompt + new - sizes.steps / 2
        step = step_s(spec, lies, sequences=cell.under_way, context=middle)
        found = {
            "tokens_s": cell.under_way / step,
            "step_s": step,
            "prompts_s": cell.under_way * read,
        }
    if not is_vllm:
        caches = cell.under_way * use.kv_bytes_per_sequence
        found["peak_gib"] = (use.weights + use.activations + caches) / GIB
    return found


# -- the whole -------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Bench:
    """Measures the cells, and prints and writes each outcome. `ends` is on the clock of `began`."""

    device: Device
    sizes: Sizes
    configs: Mapping[str, Mapping[str, Any]]
    gpu: Any  # the planner's; None: no estimates
    facts: Mapping[str, Any]  # of the file, beside the cells
    out: Path
    began: float
    ends: float
    cells: list[Cell]
    counts: dict[str, int] = field(default_factory=dict)  # of parameters

    def run_in_time(self) -> int:
        """The exit status. Whatever ends it, each cell has its outcome in the file."""

        def stop(number: int, _: Any) -> None:
            raise Stop(number)

        numbers = signal.SIGALRM, signal.SIGINT, signal.SIGTERM
        handlers = [signal.signal(number, stop) for number in numbers]
        timer = signal.setitimer(signal.ITIMER_REAL, max(self.left(), 0.001))
        status = 0
        try:
            self.run()
        except Stop as stopped:
            by = signal.Signals(stopped.args[0])
            status = 0 if by == signal.SIGALRM else 128 + by
            reason = ("stopped", f"by {by.name}") if status else ("no time", "the time was up")
            self.settle_rest(self.cells, Failed(*reason))
        finally:
            gc.unfreeze()
            signal.setitimer(signal.ITIMER_REAL, *timer)
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
        done = sum(cell.outcome == "measured" for cell in self.cells)
        self.say(f"{done} of {len(self.cells)} cells measured; results in {self.out.name}")
        return status

    def run(self) -> None:
        self.write()
        for model, config in self.configs.items():
            shapes = attempt(make, config, "meta", self.device.dtype)
            if isinstance(shapes, Failed):
                self.settle_rest([cell for cell in self.cells if cell.model == model], shapes)
            else:
                self.counts[model] = sum(each.numel() for each in shapes.parameters())
        gc.freeze()  # else each collection goes through all of transformers, for 0.3 s
        apart = ("vllm", "disk")
        known = [cell for cell in self.cells if cell.model in self.counts]
        groups = groupby(known, key=lambda c: (c.model, c.way if c.way in apart else "here"))
        for (model, way), group in groups:
            cells = list(group)
            work = (self.apart, model, way, cells) if way in apart else (self.here, model, cells)
            self.settle_rest(cells, attempt(*work))

    def here(self, model: str, cells: Sequence[Cell]) -> None:
        """Cells of transformers, in this process and with one model for all of them."""
        self.check(model, self.counts[model] / 2e9)
        begin = self.device.now()
        made = make(self.configs[model], self.device.name, self.device.dtype)
        took = self.device.now() - begin

        def late() -> bool:
            return self.left() < 0

        def probe(way: str) -> None:
            with asking_by(way, made, self.device) as ask:
                ask(1, 8, 2)

        def figures(cell: Cell) -> Figures:
            self.check(None, self.need_s(cell))
            with asking_by(cell.way, made, self.device, late) as ask:
                return {**measured(cell, ask, self.sizes), **self.device.peak()}

        for way, group in groupby(cells, key=lambda cell: cell.way):
            rest = list(group)
            if way == "weights":
                weights = sum(each.numel() * each.element_size() for each in made.parameters())
                found = {"weights_gib": weights / GIB, "parameters": self.counts[model]}
                self.settle(rest[0], {**found, "make_s": took, **self.device.peak()})
            elif isinstance(failed := attempt(probe, way), Failed):
                self.settle_rest(rest, Failed("cannot run", failed.args[1]))
            else:
                for cell in rest:
                    self.settle(cell, attempt(figures, cell))

    def apart(self, model: str, way: str, cells: Sequence[Cell]) -> None:
        """Cells in a process of their own: its memory is free when it has ended."""
        if way == "vllm" and importlib.util.find_spec("vllm") is None:
            raise Failed("cannot run", "vllm is not installed")
        self.check(model, self.need_s(cells[0]))
        config, is_cuda = self.configs[model], self.device.name != "cpu"
        with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
            if way == "disk":
                if (free := shutil.disk_usage(folder).free) < 2.1 * self.counts[model]:
                    raise Failed("cannot run", f"{free / GIB:.1f} GiB for temporary files")
                made = make(config, self.device.name, self.device.dtype)
                made.save_pretrained(folder, max_shard_size="2GB")
                del made
                self.device.clear()
            else:
                settled(config).save_pretrained(folder)
            task = {"way": way, "folder": folder, "cuda": is_cuda, "dtype": self.device.dtype}
            task |= {"words": config["vocab_size"], "sizes": asdict(self.sizes)}
            task["cells"] = [asdict(cell) for cell in cells]
            free = self.device.free()
            with contextlib.closing(child(task)) as told:
                for number, outcome in told:
                    if way == "vllm" and not isinstance(outcome, Failed):
                        outcome["taken_gib"] = (free - self.device.free()) / GIB
                    self.settle(cells[number], outcome)
                    if number == len(cells) - 1:
                        return  # and end the process: engines take seconds to leave

    def check(self, model: str | None, seconds: float) -> None:
        """Raises `Failed` where the time is too short or a model's weights do not fit the device,
        which is cleared."""
        self.device.clear()
        needed, free = 2 * self.counts.get(model or "", 0), self.device.free()
        if needed > free:
            sizes = f"{needed / GIB:.1f} GiB of weights, {free / GIB:.1f} GiB are free"
            raise Failed("cannot run", sizes)
        if seconds > self.left():
            left = max(self.left(), 0)
            raise Failed("no time", f"takes up to {seconds:.0f} s, {left:.0f} s are left")

    def left(self) -> float:
        return self.ends - time.perf_counter()

    def need_s(self, cell: Cell) -> float:
        """Seconds that a cell may take on a slow card: it is not begun with less."""
        if cell.what == "load":
            return 20.0 if self.device.name == "cpu" else 120.0
        layers: int = self.configs[cell.model]["num_hidden_layers"]
        read = 2 * self.counts[cell.model] * cell.prompt / SLOW_FLOPS
        step = max(layers * SLOW_LAYER_S, 2 * self.counts[cell.model] / SLOW_BYTES_S)
        if cell.what in ("first token", "next turn"):
            times = 2 if cell.what == "next turn" else 1
            return times * (1 + self.sizes.repeats) * max(read, step)
        return cell.under_way * read + self.sizes.new * step

    def settle_rest(self, cells: Sequence[Cell], outcome: Any) -> None:
        """Those that were not reached; nothing where there is no `Failed`."""
        rest = [cell for cell in cells if cell.outcome == "not reached"]
        for cell in rest if isinstance(outcome, Failed) else ():
            cell.outcome, cell.reason = outcome.args
        for _, group in groupby(rest, key=lambda cell: (cell.model, cell.way, cell.reason)):
            first, *others = group
            more = f" and {len(others)} further cells" if others else ""
            self.say(f"{name_of(first)}{more}: {first.outcome}: {first.reason}")
        self.write()

    def settle(self, cell: Cell, outcome: Any) -> None:
        if isinstance(outcome, Failed):
            self.settle_rest([cell], outcome)
            return
        given = cell, self.configs[cell.model], self.gpu, self.sizes
        said = attempt(planned, *given) if self.gpu else {}
        if isinstance(said, Failed):
            cell.reason, said = f"no estimate: {said.args[1]}", {}
        ratio = {name: outcome[name] / said[name] for name in outcome if said.get(name)}
        cell.figures, cell.planner, cell.ratio = map(rounded, (outcome, said, ratio))
        cell.outcome = "measured"
        beside = {n: f" [{cell.planner[n]:g}, x{of:g}]" for n, of in cell.ratio.items()}
        shown = (f"{n} {value:g}{beside.get(n, '')}" for n, value in cell.figures.items())
        self.say(f"{name_of(cell)}: {', '.join(shown)}")
        self.write()

    def say(self, text: str) -> None:
        seconds = int(time.perf_counter() - self.began)
        print(f"{seconds // 60:2}:{seconds % 60:02}  {text}", flush=True)

    def write(self) -> None:
        """Replace the file, so that whoever ends the program finds an old or a new one whole."""
        took = {"seconds": round(time.perf_counter() - self.began, 1)}
        result = {**self.facts, **took, "cells": [asdict(cell) for cell in self.cells]}
        beside = self.out.with_name(f".{self.out.name}.new")
        beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.out)


def name_of(cell: Cell) -> str:
    size = f" {cell.under_way} under way" if cell.what == "decode" else f" {cell.prompt or ''}"
    size = size.rstrip()
    return f"{cell.model.split('/')[-1]} {cell.way} {cell.what}{size}"


def rounded(figures: Figures) -> Figures:
    """Four digits; whole numbers as they are."""
    return {n: v if isinstance(v, int) else float(f"{v:.4g}") for n, v in figures.items()}


def facts_of(device: Device) -> dict[str, Any]:
    """Machine and versions, without names of hosts, folders or people. None: it is not there."""
    import torch

    from vendomini import __version__

    names = ("torch", "transformers", "accelerate", "triton", "flash-attn", "kernels", "msgspec")
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in (*names, "vllm", "vllm-cpu"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions["vendomini"] = __version__
    versions["commit"] = said_by(f"git -C {ROOT} describe --always --dirty --abbrev=12")
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    machine = {
        **device.facts(),
        "driver": said_by("nvidia-smi -i 0 --query-gpu=driver_version --format=csv,noheader"),
        "cuda": torch.version.cuda,
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, 1),
    }
    return {"machine": machine, "versions": versions}


def said_by(command: str) -> str | None:
    """A command's answer; None: there is none."""
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 20, "check": True}
    try:
        return str(subprocess.run(command.split(), **how).stdout).strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """0 at the end, also of the time; 130 or 143 when ended by Ctrl-C or TERM; 2: cannot begin."""
    began, given = time.perf_counter(), list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["--child"]:
        serve(json.loads(given[1]))
        return 0
    parser = argparse.ArgumentParser(prog="bench/gpu", description="What one GPU does.")
    parser.add_argument("--minutes", type=float, default=10.0, help="at most; default: 10")
    parser.add_argument("--model", action="append", help=f"default: {' and '.join(MODELS)}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: in bench/results")
    parser.add_argument("--tiny", action="store_true", help="rehearse on the CPU, tiny models")
    options = parser.parse_args(given)
    if not 0 < options.minutes < 1e4:
        parser.error(f"--minutes is `{options.minutes:g}`: it is more than 0")
    if options.tiny and options.model:
        parser.error("--model is not for --tiny, which has models of its own")
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            parser.error(f"`{package}` is not installed")
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    import torch
    from transformers.utils import logging

    if not options.tiny and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --tiny rehearses all of it on the CPU")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lines = (ROOT / "vendomini" / "data" / "models.jsonl").read_text(encoding="utf-8").splitlines()
    known = TINY | {entry["id"]: entry["config"] for entry in map(json.loads, lines)}
    models = list(TINY) if options.tiny else list(dict.fromkeys(options.model or MODELS))
    if unknown := [model for model in models if model not in known]:
        parser.error(f"`{unknown[0]}` is not in the catalogue, vendomini/data/models.jsonl")
    if options.tiny:
        torch.set_num_threads(1)  # several would wait for each other longer than they compute
    device = Device(None if options.tiny else torch.cuda)
    sizes, facts, today = (
        REHEARSED if options.tiny else Sizes(),
        facts_of(device),
        datetime.now(UTC),
    )
    card = facts["machine"]["card"]
    slug = "rehearsal-cpu" if card is None else re.sub(r"\W+", "-", card.lower())
    out = options.out or ROOT / "bench" / "results" / f"gpu-{slug}-{today.date().isoformat()}.json"
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        parser.error(f"--out is `{out}`: there is no folder for it, or it cannot be written")
    gpu, said = planners_gpu(facts["machine"])
    seconds = 60 * options.minutes
    settings = {"minutes": options.minutes, "dtype": device.dtype, **asdict(sizes)}
    head = {"date": today.isoformat(timespec="seconds"), "rehearsal": options.tiny}
    head |= {"device": device.name.partition(":")[0], "estimates": said}
    bench = Bench(
        device=device,
        sizes=sizes,
        configs={model: known[model] for model in models},
        gpu=gpu,
        facts={**head, **facts, "settings": settings},
        out=out,
        began=began,
        ends=began + seconds - min(SPARE_S, seconds / 10),
        cells=cells_of(models, sizes),
    )
    bench.say(f"{card or 'CPU, a rehearsal'}; figure [the planner's, times]: estimates {said}")
    return bench.run_in_time()


if __name__ == "__main__":
    if not __package__:
        sys.path[0] = str(ROOT)  # as a script: the planner is this clone's
    sys.exit(main())
