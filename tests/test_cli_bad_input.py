"""Bad input at the command line: one error that says where and what instead, and nothing done."""

import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import pytest

from tests.fakes.slurm import FakeSlurm
from tests.model_folders import model_folder
from vendomini.cli.main import main
from vendomini.store.records import STORE_FORMAT

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NOBODY = 65534

GOOD = f"""\
inherit: {CONFIGS / "base.yaml"}
experiment:
  name: small
  replications: 2
agent:
  kind: heuristic
fixed:
  simulation.max_steps: 5
grid:
  pe_induction.p_shock: [0.0, 0.5]
  pe_induction.pe_mag: [low, high]
"""


class Refusal(Protocol):
    """The one error a command ends with: message and hint."""

    def __call__(
        self, *arguments: str | Path, code: int = 2, by_nobody: bool = False
    ) -> tuple[str, str]: ...


Write = Callable[[str], Path]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; nothing is inherited from whoever runs the tests."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("VENDOMINI_ROOT", raising=False)
    for name in os.environ:
        if name.startswith(("SLURM_", "SBATCH_")):
            monkeypatch.delenv(name)
    return here


@pytest.fixture
def refusal(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Refusal]:
    before = signal.getsignal(signal.SIGTERM)

    def refuse(*arguments: str | Path, code: int = 2, by_nobody: bool = False) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["vendomini", *(str(word) for word in arguments)])
        there_were = everything_in(Path.cwd())
        with pytest.raises(SystemExit) as exit_, as_nobody() if by_nobody else nullcontext():
            main()
        said = capsys.readouterr()
        assert exit_.value.code == code, said.err
        assert said.out == ""
        assert everything_in(Path.cwd()) == there_were
        assert "Traceback" not in said.err
        assert said.err.startswith("error: ")
        assert "\nerror: " not in said.err
        message, _, hint = said.err.removeprefix("error: ").partition("\nhint: ")
        assert hint.strip(), f"no hint: {said.err}"
        return message, hint.strip()

    yield refuse
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def write(workplace: Path) -> Write:
    """Write the phase file, beside the current directory so that it is no output of a command."""

    def write_phase(text: str) -> Path:
        path = workplace.parent / "phase.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_phase


def everything_in(folder: Path) -> dict[str, bytes]:
    """Each file's content, and each folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in folder.rglob("*")
    }


def with_line(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


STEPS = "  simulation.max_steps: 5\n"
DOSE = "[0.0, 0.5]"

FILES = {
    "a misspelt key": (
        with_line("  kind: heuristic", "  kindd: heuristic"),
        "line 6: there is no setting `agent.kindd`",
        "did you mean `agent.kind`?",
    ),
    "a misspelt section": (
        with_line("agent:\n", "agnet:\n"),
        "line 5: there is no setting `agnet`",
        "did you mean `agent`?",
    ),
    "a wrong type": (
        with_line(STEPS, "  simulation.max_steps: many\n"),
        "line 8: `simulation.max_steps` is `many`, which is text",
        "it takes a whole number (at least 1",
    ),
    "a number in quotes": (
        with_line(STEPS, '  simulation.max_steps: "5"\n'),
        "line 8: `simulation.max_steps` is `5`, which is text",
        "remove the quotes",
    ),
    "a fraction where a whole number is wanted": (
        with_line(STEPS, "  simulation.max_steps: 5.5\n"),
        "line 8: `simulation.max_steps` is `5.5`, which is a number with a fraction",
        "it takes a whole number",
    ),
    "a value outside its choices": (
        with_line("kind: heuristic", "kind: heuristics"),
        "line 6: `agent.kind` is `heuristics`, which is not among its choices",
        "did you mean `heuristic`? It takes `llm`, `heuristic`, `random` or `probe`",
    ),
    "a value of an axis outside its choices": (
        with_line("[low, high]", "[low, hihg]"),
        "line 11: `pe_induction.pe_mag` is `hihg`",
        "did you mean `high`?",
    ),
    "a value outside its range": (
        with_line(DOSE, "[0.0, 1.5]"),
        "line 10: `pe_induction.p_shock` is `1.5`",
        "at most 1",
    ),
    "a value where a section goes": (
        with_line("agent:\n  kind: heuristic", "agent: heuristic"),
        "line 5: `agent` is `heuristic`, but it is a section of settings",
        "write settings below it, indented: kind, model, interface",
    ),
    "an empty axis": (
        with_line(DOSE, "[]"),
        "line 10: the axis `pe_induction.p_shock` is empty",
        "list its values",
    ),
    "an axis without a value": (
        with_line(f" {DOSE}", ""),
        "line 10: the axis `pe_induction.p_shock` is empty",
        "list its values",
    ),
    "a scalar axis": (
        with_line(DOSE, "0.5"),
        "line 10: the axis `pe_induction.p_shock` is one value, no list: `0.5`",
        "list its values, or write the one value under `fixed`",
    ),
    "the same value twice": (
        with_line(DOSE, "[0.5, 0.50]"),
        "line 10: the axis `pe_induction.p_shock` has `0.5` twice",
        "raise `experiment.replications`",
    ),
    "a key in grid and fixed": (
        with_line(STEPS, f"{STEPS}  pe_induction.pe_mag: low\n"),
        "`pe_induction.pe_mag` is in `grid` and in `fixed`",
        "remove it from one of the two",
    ),
    "a grid key that names no setting": (
        with_line("pe_induction.p_shock", "pe_induction.p_shok"),
        "line 10: there is no setting `pe_induction.p_shok`",
        "did you mean `pe_induction.p_shock`?",
    ),
    "a grid key that names a section": (
        with_line("pe_induction.p_shock", "pe_induction"),
        "line 10: `pe_induction` is a section",
        "pe_induction.",
    ),
    "not a number": (
        with_line(DOSE, "[0.0, .nan]"),
        "line 10: `grid.pe_induction.p_shock[1]` is `.nan`, which is not a finite number",
        "",
    ),
    "infinity": (
        with_line(STEPS, "  simulation.initial_budget: .inf\n"),
        "line 8: `fixed.simulation.initial_budget` is `.inf`, which is not a finite number",
        "",
    ),
    "a number too large to be finite": (
        with_line(STEPS, "  simulation.initial_budget: 1.0e+999\n"),
        "line 8: `fixed.simulation.initial_budget` is `1.0e+999`, which is not a finite number",
        "",
    ),
    "a billion runs": (
        with_line("replications: 2", "replications: 250000000"),
        "line 9: the phase has `1000000000` runs",
        "shorten an axis",
    ),
    "a YAML clock": (
        with_line(STEPS, "  simulation.max_steps: 12:30\n"),
        "line 8: `fixed.simulation.max_steps` is `12:30`, which some YAML readers take for a time",
        'put it in quotes ("12:30") if it is text',
    ),
    "a YAML octal": (
        with_line(STEPS, "  simulation.max_steps: 010\n"),
        "line 8: `fixed.simulation.max_steps` is `010`, which some YAML readers take for a number",
        "write the decimal number",
    ),
    "not YAML": (
        with_line("fixed:\n", "fixed: [\n"),
        "not YAML",
        "check indentation",
    ),
    "a tab": (
        with_line(STEPS, "\tsimulation.max_steps: 5\n"),
        "line 8, column 1: not YAML",
        "spaces, no tabs",
    ),
    "a key written twice": (
        with_line(STEPS, STEPS + STEPS),
        "line 9: `fixed.simulation.max_steps` is written twice (first in line 8)",
        "remove one",
    ),
    "no mapping": ("- a\n- b\n", "phase.yaml", "`experiment:`"),
    "an empty file": ("", "is empty", "inherit"),
    "nothing but a comment": ("# to be written\n", "is empty", "inherit"),
    "a missing inherit": (
        with_line("base.yaml", "bsae.yaml"),
        "line 1: `inherit: ",
        f"did you mean `{CONFIGS / 'base.yaml'}`?",
    ),
    "a circular inherit": (
        f"inherit: phase.yaml\n{GOOD.partition(chr(10))[2]}",
        "line 1: `inherit: phase.yaml` leads back to a file that inherits from this one",
        "remove one `inherit` from the circle",
    ),
    "an inherit that is no path": (
        f"inherit: [a, b]\n{GOOD.partition(chr(10))[2]}",
        "line 1: `inherit` is `['a', 'b']`",
        "name one file",
    ),
    "a name that is a path": (
        with_line("name: small", "name: ../small"),
        "line 3: `experiment.name` is `../small`, which is a path",
        "it names a folder below --root",
    ),
    "a hidden name": (
        with_line("name: small", "name: .small"),
        "line 3: `experiment.name` is `.small`",
        "it names a folder below --root",
    ),
    "an empty name": (
        with_line("name: small", 'name: ""'),
        "line 3: `experiment.name` is",
        "it names a folder below --root",
    ),
    "no replication": (
        with_line("replications: 2", "replications: 0"),
        "line 4: `experiment.replications` is `0`",
        "at least 1",
    ),
    "an unknown workload": (
        with_line("name: small", "workload: warehose"),
        "line 3: ",
        "warehouse",
    ),
    "values that are impossible together": (
        with_line(STEPS, "  simulation.initial_storage_per_sku: 400\n"),
        "`simulation.initial_storage_per_sku` `400` times `10` SKUs is `4000`",
        "raise the capacity",
    ),
    "an environment variable": (
        with_line("name: small", "name: ${oc.env:HOME}"),
        "line 3: ",
        "",
    ),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(("text", "said", "advised"), FILES.values(), ids=FILES)
def test_a_wrong_phase_file_is_one_error_that_says_where_and_what_instead(
    refusal: Refusal, write: Write, command: str, text: str, said: str, advised: str
) -> None:
    file = write(text)
    message, hint = refusal(command, file)
    assert said in message
    assert str(file) in message
    assert advised in hint


OVERRIDES = {
    "without =": ("pe_induction.p_shock", "not of the form KEY=VALUE", "engine.concurrency=100"),
    "without a key": ("=3", "not of the form KEY=VALUE", "engine.concurrency=100"),
    "an option after a word": ("cluster", "not of the form KEY=VALUE", "a dotted key"),
    "a misspelt key": ("agent.knd=llm", "there is no setting `agent.knd`", "`agent.kind`?"),
    "a wrong type": ("simulation.max_steps=ten", "is `ten`, which is text", "a whole number"),
    "no value": ("simulation.max_steps=", "`simulation.max_steps` is", "a whole number"),
    "outside the choices": ("agent.kind=lm", "is `lm`", "did you mean `llm`?"),
    "outside the range": ("pe_induction.p_shock=-1", "is `-1`", "at least 0"),
    "not finite": ("pe_induction.p_shock=.inf", "is not a finite number", ""),
    "a clock": ("simulation.max_steps=1:30", "take for a time of day", "put it in quotes"),
    "broken YAML": ("simulation.max_steps=[1", "not YAML", "check"),
    "a name that is a path": ("experiment.name=a/b", "which is a path", "below --root"),
    "a scalar axis": ("grid.pe_induction.p_shock=0.5", "is one value, no list", "list its values"),
    "an axis of one setting twice": ("grid.pe_induction.pe_mag=[low,low]", "twice", "remove one"),
    "a list where one value goes": ("pe_induction.p_shock=[0.1,0.2]", "is a list", "in the grid"),
    "inherit": ("inherit=other.yaml", "`inherit` acts in files only", "FILE"),
}


@pytest.mark.parametrize(("override", "said", "advised"), OVERRIDES.values(), ids=OVERRIDES)
def test_a_wrong_override_is_one_error_that_quotes_it(
    refusal: Refusal, write: Write, override: str, said: str, advised: str
) -> None:
    message, hint = refusal("run", "--config", write(GOOD), override)
    assert f"override `{override}`" in message
    assert said in message
    assert advised in hint


NO_FILE = {
    "none": ((), "No FILE is given", "`vendomini run demo`"),
    "a setting instead": (
        ("agent.kind=llm", "demo"),
        "`agent.kind=llm` is a setting, where FILE is expected",
        "`vendomini run demo agent.kind=llm`",
    ),
    "two files": (
        ("../phase.yaml", "agent.kind=llm", "other.yaml"),
        "FILE is given twice: `../phase.yaml` and `other.yaml`",
        "give one phase",
    ),
    "a file and a name": (
        ("../phase.yaml", "demo"),
        "FILE is given twice: `../phase.yaml` and `demo`",
        "give one phase",
    ),
    "as FILE and as --config": (
        ("demo", "--config", "../phase.yaml"),
        "FILE is given twice: `../phase.yaml` and `demo`",
        "as FILE or with --config",
    ),
    "--config twice": (
        ("--config", "a.yaml", "--config", "b.yaml"),
        "FILE is given twice: `a.yaml` and `b.yaml`",
        "give one phase",
    ),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(("words", "said", "advised"), NO_FILE.values(), ids=NO_FILE)
def test_no_phase_or_two_is_one_error(
    refusal: Refusal, write: Write, command: str, words: tuple[str, ...], said: str, advised: str
) -> None:
    write(GOOD)
    message, hint = refusal(command, *words)
    assert said in message
    assert advised in hint


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_name_that_is_not_shipped_names_the_nearest_and_where_all_are(
    refusal: Refusal, command: str
) -> None:
    message, hint = refusal(command, "phase1_large_model")
    assert message == "`phase1_large_model` is neither a file nor the name of a shipped phase"
    assert hint.startswith("did you mean `phase1_large_models`")
    assert "`vendomini run --help` names all that are shipped" in hint
    message, hint = refusal("plan", "demo", "--profile", "h10")
    assert message == "`h10` is neither a file nor the name of a shipped profile"
    assert hint.startswith("did you mean `h100`")


def test_a_path_that_is_not_there_but_ends_in_a_shipped_name_says_so(refusal: Refusal) -> None:
    message, hint = refusal("plan", "configs/phases/phase1_large_models.yaml")
    assert message == "there is no file `configs/phases/phase1_large_models.yaml`"
    assert hint.startswith("did you mean the shipped phase `phase1_large_models`?")


def test_a_file_that_is_not_there_names_the_nearest_one(refusal: Refusal, write: Write) -> None:
    write(GOOD)
    message, hint = refusal("run", "../phse.yaml")
    assert message == "there is no file `../phse.yaml`"
    assert hint == "did you mean `../phase.yaml`?"


def test_a_folder_is_no_phase_file(refusal: Refusal) -> None:
    message, hint = refusal("run", CONFIGS)
    assert message == f"`{CONFIGS}` is a folder"
    assert hint == "name a YAML file in it"


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(refusal: Refusal, write: Write) -> None:
    file = write(GOOD)
    file.write_bytes(GOOD.replace("name: small", "name: sm\xe4ll").encode("latin-1"))
    message, hint = refusal("run", file)
    assert message == f"{file}, line 3: the file is not UTF-8 text"
    assert hint == "save it as UTF-8"


@pytest.mark.parametrize("option", ["--limit", "--n-jobs"])
@pytest.mark.parametrize("value", ["0", "-3"])
def test_fewer_than_one_is_refused(refusal: Refusal, write: Write, option: str, value: str) -> None:
    message, hint = refusal("run", write(GOOD), option, value)
    assert message == f"{option} is `{value}`"
    assert "from 1 on" in hint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["collect"], "Missing argument 'EXPERIMENT'"),
        (["rnu"], "No such command 'rnu'"),
        (["run", "x.yaml", "--n-jobs", "two"], "'--n-jobs'"),
        (["run", "x.yaml", "--clustr"], "--clustr"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_command_that_is_not_complete_shows_how_to_ask_for_help(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["vendomini", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    output = capsys.readouterr()
    assert exit_.value.code == 2
    assert output.out == ""
    assert said in output.err
    assert "-h' for help" in output.err
    assert "Traceback" not in output.err
    assert everything_in(workplace) == {}


# -- models and engines -----------------------------------------------------------------------


@pytest.fixture
def chatty(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete model of 8192 tokens and 8 heads; the hub's cache is empty, and no GPU is here."""
    monkeypatch.setenv("HF_HUB_CACHE", str(workplace.parent / "hub"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return model_folder(workplace.parent / "model")


VLLM = ("engine.backend=vllm",)
ASKED_FOR = {
    "a window beyond the model's": (
        ("agent.model.context_length=9000",),
        "`agent.model.context_length` is `9000`, but the longest context of model",
        "agent.model.context_length=8192",
    ),
    "an engine beyond the model": (
        ("engine.max_model_len=9000",),
        "`engine.max_model_len` is `9000`, but the longest context of model",
        "engine.max_model_len=8192",
    ),
    "an engine that holds less than the window": (
        ("engine.max_model_len=4096",),
        "`engine.max_model_len` is `4096`, less than `agent.model.context_length`, `8192`",
        "agent.model.context_length=4096",
    ),
    "heads that do not divide": (
        (*VLLM, "engine.tensor_parallel_size=3"),
        "`engine.tensor_parallel_size` is `3`, which does not divide the `8` attention heads",
        "possible: 1, 2, 4, 8",
    ),
    "tensor parallelism with transformers": (
        ("engine.backend=hf", "engine.tensor_parallel_size=2"),
        "`engine.tensor_parallel_size` is `2`, but has no effect with backend `hf`",
        "spreads a model's layers over its GPUs by itself",
    ),
    "no switch for thinking": (
        ("agent.model.thinking='on'",),
        "`agent.model.thinking` is `on`, but the chat template of model",
        "agent.model.thinking=default",
    ),
    "a dtype nobody knows": (
        ("engine.dtype=bf16",),
        "`engine.dtype` is `bf16`, which is not among",
        "did you mean `bfloat16`?",
    ),
    "an interpreter that is not there": (
        ("engine.python=/no/where/python",),
        "`engine.python` is `/no/where/python`, which is no program",
        "env/bin/python",
    ),
    "a setting of the scripted engine": (
        (*VLLM, "engine.latency_s=0.5"),
        "`engine.latency_s` is `0.5`, but has no effect with backend `vllm`",
        "engine.backend=scripted",
    ),
    "a setting of transformers": (
        (*VLLM, "engine.attn_implementation=sdpa"),
        "`engine.attn_implementation` is `sdpa`, but has no effect with backend `vllm`",
        "engine.backend=hf",
    ),
    "an address that is not used": (
        ("engine.backend=hf", "engine.base_url=http://host/v1"),
        "`engine.base_url` is `http://host/v1`, but has no effect with backend `hf`",
        "engine.backend=openai",
    ),
    "no address": (
        ("engine.backend=openai",),
        "`engine.base_url` does not say where the server is",
        "engine.base_url=http://",
    ),
    "a password in the address": (
        ("engine.backend=openai", "engine.base_url=https://me:secret@host/v1"),
        "`engine.base_url` has a name or a password in it",
        "VENDOMINI_API_KEY",
    ),
    "a GPU that is not there": (
        ("engine.device=cuda",),
        "`engine.device` is `cuda`, but this machine has no GPU",
        "engine.device=auto",
    ),
}


@pytest.mark.parametrize("name", ASKED_FOR)
def test_what_a_model_or_an_engine_cannot_do_is_refused_before_it_is_loaded(
    refusal: Refusal, write: Write, chatty: Path, name: str
) -> None:
    overrides, said, instead = ASKED_FOR[name]
    asked = ("agent.kind=llm", f"agent.model.name={chatty}", *overrides)
    message, hint = refusal("run", write(GOOD), *asked)
    assert said in message
    assert instead in hint


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda folder: folder.rename(f"{folder}2"), "there is no such folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "half a config": (lambda folder: (folder / "config.json").write_text("{"), "is damaged"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
    "half the weights": (
        lambda folder: os.truncate(folder / "model.safetensors", 150),
        "its header says",
    ),
    "weights that are another's": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"GGUF" + bytes(60)),
        "is damaged",
    ),
    "a GGUF file in their place": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model.gguf"),
        "holds its model as a GGUF file, `model.gguf`",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    "no template": (
        lambda folder: (folder / "chat_template.jinja").unlink(),
        "has no chat template",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_model_that_is_not_complete_is_refused(
    refusal: Refusal, write: Write, chatty: Path, command: str, name: str
) -> None:
    breaks, said = BROKEN[name]
    breaks(chatty)
    asked = ("agent.kind=llm", "engine.backend=hf", f"agent.model.name={chatty}")
    message, _ = refusal(command, write(GOOD), *asked)
    assert said in message
    assert str(chatty) in message


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("backend", ["auto", "hf", "vllm"])
def test_a_gguf_file_is_refused_with_the_command_that_makes_a_folder_of_it(
    refusal: Refusal, write: Write, chatty: Path, command: str, backend: str
) -> None:
    file = chatty.parent / "my model.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    asked = ("agent.kind=llm", f"engine.backend={backend}", f"agent.model.name='{file}'")
    message, hint = refusal(command, write(GOOD), *asked)
    assert f"model `{file}` is a GGUF file" in message
    assert hint.endswith(f"-m vendomini.models.from_gguf '{file}' '{chatty.parent / 'my model'}'")
    assert ("pip install gguf" in hint) == (importlib.util.find_spec("gguf") is None)
    (chatty / "config.json").unlink()
    (chatty / "model.safetensors").rename(chatty / "q4.gguf")
    message, hint = refusal(command, write(GOOD), "agent.kind=llm", f"agent.model.name={chatty}")
    assert "holds its model as a GGUF file, `q4.gguf`" in message
    assert f"{chatty / 'q4.gguf'} {chatty / 'q4'}" in hint


def test_a_gguf_file_is_known_by_its_name_in_the_current_folder(
    refusal: Refusal, write: Write, workplace: Path, chatty: Path
) -> None:
    (workplace / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    message, _ = refusal("plan", write(GOOD), "agent.kind=llm", "agent.model.name=model.gguf")
    assert "is a GGUF file" in message


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_window_that_memory_cannot_hold_is_refused_with_one_that_fits(
    refusal: Refusal, write: Write, chatty: Path, command: str
) -> None:
    asked = ("agent.kind=llm", "engine.backend=hf", f"agent.model.name={chatty}")
    cache = ("engine.kv_cache_memory_bytes=4000000",)
    message, hint = refusal(command, write(GOOD), *asked, *cache)
    assert "`agent.model.context_length` is `8192`: one conversation of model" in message
    assert "but `engine.kv_cache_memory_bytes` is `4000000`" in message
    assert "at most 1953 tokens fit, agent.model.context_length=1953" in hint
    assert "engine.kv_cache_memory_bytes=16777216" in hint


def test_an_engine_that_is_not_installed_is_refused_with_how_to_install_it(
    refusal: Refusal, write: Write, chatty: Path
) -> None:
    bare = chatty.parent / "bare"
    bare.write_text("#!/bin/sh\n")
    bare.chmod(0o755)
    asked = ("agent.kind=llm", f"agent.model.name={chatty}", f"engine.python={bare}")
    message, hint = refusal("run", write(GOOD), *asked)
    assert message == (
        f"`engine.backend` is `auto`, but neither vLLM nor transformers is in `{bare}`"
    )
    assert 'pip install "vendomini[hf]"' in hint
    alone = ("engine.backend=vllm", "engine.on_failure=fail")
    message, hint = refusal("run", write(GOOD), *asked, *alone)
    assert message == f"backend `vllm` needs `vllm`, which `{bare}` does not have"
    assert "engine.python=PATH" in hint


def test_a_window_that_cannot_be_known_here_must_be_given(
    refusal: Refusal, write: Write, chatty: Path
) -> None:
    asked = ("agent.kind=llm", "agent.model.name=org/elsewhere", "engine.backend=hf")
    message, hint = refusal("run", write(GOOD), *asked)
    assert message.startswith("`agent.model.context_length` is `auto`, but")
    assert "agent.model.context_length=8192" in hint


# -- profiles and Slurm -----------------------------------------------------------------------


@pytest.fixture
def profile(workplace: Path) -> Write:
    def write_profile(text: str) -> Path:
        path = workplace.parent / "site.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_profile


def test_a_profile_that_is_not_there_names_the_nearest_one(
    refusal: Refusal, write: Write, profile: Write
) -> None:
    profile("partition: cpu\n")
    message, hint = refusal("run", write(GOOD), "--cluster", "--profile", "../sites.yaml")
    assert message == "there is no file `../sites.yaml`"
    assert hint == "did you mean `../site.yaml`?"


def test_a_misspelt_key_of_a_profile_is_refused(
    refusal: Refusal, write: Write, profile: Write
) -> None:
    file = profile("partiton: cpu\n")
    message, hint = refusal("run", write(GOOD), "--cluster", "--profile", file)
    assert message == f"{file}, line 1: there is no setting `partiton`"
    assert hint == "did you mean `partition`?"


def test_a_profile_without_a_cluster_is_refused(
    refusal: Refusal, write: Write, profile: Write
) -> None:
    file = profile("partition: cpu\n")
    message, hint = refusal("run", write(GOOD), "--profile", file)
    assert "--profile" in message
    assert "--cluster" in hint


def test_a_partition_that_the_cluster_does_not_have_names_the_nearest_one(
    refusal: Refusal, write: Write, profile: Write, fake_slurm: FakeSlurm
) -> None:
    file = profile("partition: gpuu\n")
    message, hint = refusal("run", write(GOOD), "--cluster", "--profile", file)
    assert message == "profile `site`: the cluster has no partition `gpuu`"
    assert hint.startswith("did you mean `gpu`?")
    assert fake_slurm.jobs() == []


def test_a_cluster_that_does_not_answer_is_no_mistake_of_the_user(
    refusal: Refusal, write: Write, fake_slurm: FakeSlurm
) -> None:
    fake_slurm.go_down()
    message, hint = refusal("run", write(GOOD), "--cluster", code=3)
    assert "Unable to contact slurm controller" in message
    assert "scontrol ping" in hint


def test_a_group_that_the_plan_does_not_have_cannot_be_restarted(
    refusal: Refusal, write: Write
) -> None:
    message, hint = refusal("run", write(GOOD), "--restart-group", "no engine")
    assert message == "--restart-group: nothing was played yet"
    assert hint


# -- folders ----------------------------------------------------------------------------------


def test_a_file_where_a_folder_should_be_is_in_the_way(refusal: Refusal, write: Write) -> None:
    Path("experiments").write_text("mine")
    message, hint = refusal("run", write(GOOD))
    assert "`experiments/small`" in message
    assert "in the way" in hint


def test_a_folder_of_somebody_elses_files_is_left_alone(refusal: Refusal, write: Write) -> None:
    Path("experiments/small").mkdir(parents=True)
    Path("experiments/small/thesis.tex").write_text("chapter 1")
    message, hint = refusal("run", write(GOOD))
    assert message == "`experiments/small` exists and is no experiment"
    assert "experiment.name" in hint


@pytest.mark.parametrize("root", ["/proc/experiments", "/dev/null", "/dev/null/experiments"])
def test_a_place_where_no_folder_can_be_is_refused(
    refusal: Refusal, write: Write, root: str
) -> None:
    message, hint = refusal("run", write(GOOD), "--root", root)
    assert message.startswith(f"cannot make the folder `{root}/small`: ")
    assert "--root" in hint


def test_a_path_that_is_not_utf_8_is_refused(refusal: Refusal, write: Write) -> None:
    message, hint = refusal("run", write(GOOD), "--root", "ex\udcffperiments")
    assert message == r"--root is 'ex\udcffperiments', which is not UTF-8 text"
    assert hint


def make_marker(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(content)


@pytest.mark.parametrize("command", [["run", "--config"], ["status"], ["collect"]])
def test_an_experiment_of_another_store_format_is_refused(
    refusal: Refusal, write: Write, command: list[str]
) -> None:
    newer = STORE_FORMAT + 1
    make_marker(Path("experiments/small"), json.dumps({"store_format": newer, "made_by": "9.9.9"}))
    argument = str(write(GOOD)) if command[0] == "run" else "small"
    message, hint = refusal(*command, argument)
    assert f"`experiments/small` has store format {newer} (made by VendoMini 9.9.9)" in message
    assert f"this VendoMini reads format {STORE_FORMAT}" in message
    assert "use that version" in hint


@pytest.mark.parametrize("command", ["status", "collect"])
def test_a_damaged_experiment_is_refused_with_the_file(refusal: Refusal, command: str) -> None:
    make_marker(Path("experiments/small"), "{")
    message, _ = refusal(command, "small")
    assert message.startswith("`experiments/small/experiment.json` is damaged")


@pytest.mark.parametrize("command", ["status", "collect"])
def test_a_name_that_is_no_experiment_names_the_nearest_one(refusal: Refusal, command: str) -> None:
    make_marker(Path("experiments/small"), '{"store_format":1,"made_by":"0.1.0"}')
    message, hint = refusal(command, "smal")
    assert message == "`smal` is no experiment, and neither is `experiments/smal`"
    assert hint == "did you mean `small`? there are: small"


def test_a_name_too_long_for_a_folder_is_refused(refusal: Refusal) -> None:
    message, _ = refusal("status", "a" * 300)
    assert "File name too long" in message


# -- rights: root may do everything, so another user asks ------------------------------------


@pytest.fixture
def shared(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory that everybody may pass through; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        yield Path(folder)
        monkeypatch.chdir(workplace)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root inside the block; whoever is not root has none to lose."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_where_nothing_may_be_written_is_refused(refusal: Refusal, shared: Path) -> None:
    file = shared / "phase.yaml"
    file.write_text(GOOD)
    (shared / "experiments").mkdir(mode=0o555)
    message, hint = refusal("run", file, by_nobody=True)
    assert message == "cannot make the folder `experiments/small`: Permission denied"
    assert "--root" in hint
    assert list((shared / "experiments").iterdir()) == []


@pytest.mark.parametrize("command", [["run", "phase.yaml"], ["status", "small"]])
def test_an_experiment_that_may_not_be_read_is_refused(
    refusal: Refusal, shared: Path, command: list[str]
) -> None:
    (shared / "phase.yaml").write_text(GOOD)
    make_marker(shared / "experiments" / "small", '{"store_format":1,"made_by":"0.1.0"}')
    (shared / "experiments" / "small").chmod(0)
    message, hint = refusal(*command, by_nobody=True)
    (shared / "experiments" / "small").chmod(0o700)
    assert message == "cannot read `experiments/small/experiment.json`: Permission denied"
    assert "ask for the right" in hint


def test_a_phase_file_that_may_not_be_read_is_refused(refusal: Refusal, shared: Path) -> None:
    (shared / "phase.yaml").write_text(GOOD)
    (shared / "phase.yaml").chmod(0)
    message, hint = refusal("plan", "phase.yaml", by_nobody=True)
    assert message == "`phase.yaml` cannot be read: Permission denied"
    assert "permissions" in hint


def test_a_local_model_that_may_not_be_read_is_refused(refusal: Refusal, shared: Path) -> None:
    (shared / "phase.yaml").write_text(GOOD)
    (shared / "model").mkdir(mode=0)
    message, hint = refusal("plan", "phase.yaml", "agent.model.name=./model", by_nobody=True)
    (shared / "model").chmod(0o700)
    assert (
        message
        == f"`agent.model.name` is `{shared / 'model'}`, which cannot be read: Permission denied"
    )
    assert "permissions" in hint
