"""The command lines of engines: what the settings say reaches the server, and the key does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.specs import engine_spec
from vendomini.engines.commands import KnownDevice, engine_command
from vendomini.engines.memory import available_memory
from vendomini.engines.process import device_of, gpu_is_here
from vendomini.engines.vllm import reasoning_parser
from vendomini.errors import EngineError
from vendomini.serving import EngineSpec

VLLM = engine_spec(backend="vllm", model="org/model")
HF = engine_spec(backend="hf", model="org/model")
SOCKET = Path("/tmp/folder/engine.sock")


def changed(spec: EngineSpec, **changes: object) -> EngineSpec:
    """The spec with other settings, or another model."""
    own = {name: value for name, value in changes.items() if hasattr(spec, name) and name != "gpus"}
    settings = {name: value for name, value in changes.items() if name not in own}
    return replace(spec, settings=replace(spec.settings, **settings), **own)  # type: ignore[arg-type]


def words(spec: EngineSpec, device: KnownDevice = "cuda") -> list[str]:
    return list(engine_command(spec, device=device, socket=SOCKET, key="sekrit").argv)


def value(argv: list[str], option: str) -> str | None:
    return argv[argv.index(option) + 1] if option in argv else None


@pytest.mark.parametrize(
    ("change", "option", "written"),
    [
        ({"tensor_parallel_size": 4}, "--tensor-parallel-size", "4"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size", "2"),
        ({"dtype": "bfloat16"}, "--dtype", "bfloat16"),
        ({"quantization": "awq"}, "--quantization", "awq"),
        ({"revision": "abc"}, "--revision", "abc"),
        ({"max_model_len": 8192}, "--max-model-len", "8192"),
        ({"gpu_memory_utilization": 0.8}, "--gpu-memory-utilization", "0.8"),
        ({"kv_cache_memory_bytes": 1 << 30}, "--kv-cache-memory-bytes", str(1 << 30)),
        ({"block_size": 64}, "--block-size", "64"),
        ({"concurrency": 7}, "--max-num-seqs", "7"),
        ({"thinking": True}, "--reasoning-parser", "deepseek_r1"),
    ],
)
def test_a_setting_of_vllm_is_an_option_of_its_server(
    change: dict[str, object], option: str, written: str
) -> None:
    assert value(words(changed(VLLM, **change)), option) == written
    assert value(words(VLLM), option) != written


def test_switches_of_vllm_are_passed_on() -> None:
    assert "--enable-prefix-caching" in words(VLLM)
    assert "--no-enable-prefix-caching" in words(changed(VLLM, enable_prefix_caching=False))
    assert "--enforce-eager" not in words(VLLM)
    assert "--enforce-eager" in words(changed(VLLM, enforce_eager=True))


@pytest.mark.parametrize(
    ("change", "option", "written"),
    [
        ({"dtype": "float16"}, "--dtype", "float16"),
        ({"quantization": "bitsandbytes-4bit"}, "--quantization", "bitsandbytes-4bit"),
        ({"attn_implementation": "eager"}, "--attn-implementation", "eager"),
        ({"max_model_len": 8192}, "--max-model-len", "8192"),
        ({"kv_cache_memory_bytes": 1 << 30}, "--kv-cache-memory-bytes", str(1 << 30)),
        ({"gpus": 2}, "--gpus", "2"),
        ({"concurrency": 7}, "--max-num-seqs", "7"),
    ],
)
def test_a_setting_of_hf_is_an_option_of_its_server(
    change: dict[str, object], option: str, written: str
) -> None:
    assert value(words(changed(HF, **change)), option) == written
    assert value(words(HF), option) != written


@pytest.mark.parametrize("spec", [VLLM, HF], ids=["vllm", "hf"])
def test_the_key_is_in_the_environment_and_not_on_the_command_line(spec: EngineSpec) -> None:
    command = engine_command(spec, device="cuda", socket=SOCKET, key="sekrit")
    assert "sekrit" not in " ".join(command.argv)
    assert "sekrit" in command.environment.values()
    assert command.argv[-2:] == ("--uds", str(SOCKET))


def test_vllm_on_a_cpu_leaves_memory_to_others_and_finds_short_prefixes() -> None:
    argv = words(changed(VLLM, tensor_parallel_size=2), "cpu")
    cache = int(value(argv, "--kv-cache-memory-bytes") or 0)
    assert 0 < 2 * cache < available_memory().bytes / 2  # two ranks, each with its own
    assert value(argv, "--block-size") == "32"
    command = engine_command(
        changed(VLLM, tensor_parallel_size=2), device="cpu", socket=SOCKET, key="k"
    )
    assert command.environment["VLLM_CPU_OMP_THREADS_BIND"] == "0|1"
    assert value(words(VLLM, "cuda"), "--block-size") is None


@pytest.mark.parametrize("spec", [VLLM, HF], ids=["vllm", "hf"])
def test_an_engine_on_cpus_uses_those_of_its_job(spec: EngineSpec) -> None:
    devices: list[tuple[KnownDevice, str | None]] = [("cpu", "4"), ("cuda", None)]
    for device, threads in devices:
        command = engine_command(spec, device=device, socket=SOCKET, key="k", cpus="4")
        assert command.environment.get("OMP_NUM_THREADS") == threads
    outside = engine_command(spec, device="cpu", socket=SOCKET, key="k")
    assert "OMP_NUM_THREADS" not in outside.environment


@pytest.mark.parametrize("spec", [VLLM, HF], ids=["vllm", "hf"])
def test_the_hub_is_left_alone_for_a_model_that_is_here(spec: EngineSpec) -> None:
    for is_cached, offline in ((True, "1"), (False, None)):
        command = engine_command(spec, device="cpu", socket=SOCKET, key="k", is_cached=is_cached)
        assert command.environment.get("HF_HUB_OFFLINE") == offline


def test_an_engine_runs_in_its_own_interpreter(tmp_path: Path) -> None:
    assert words(changed(VLLM, python="/opt/vllm/bin/python"))[0] == "/opt/vllm/bin/python"


def test_a_container_gets_the_socket_the_model_and_the_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "apptainer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = changed(VLLM, model=str(tmp_path), container="vllm.sif")
    argv = words(spec)
    assert argv[:3] == [str(program), "exec", "--nv"]
    assert argv[3:7] == ["--bind", f"{SOCKET.parent},{tmp_path}", "vllm.sif", "python3"]
    assert "--nv" not in words(spec, "cpu")


def test_a_container_without_a_program_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineError, match="needs apptainer or singularity"):
        words(changed(VLLM, container="vllm.sif"))


def test_thoughts_are_marked_as_the_models_family_marks_them() -> None:
    assert reasoning_parser(changed(VLLM, model="Qwen/Qwen3-32B")) == "qwen3"
    assert reasoning_parser(changed(VLLM, model="/models/other")) == "deepseek_r1"
    assert reasoning_parser(changed(VLLM, reasoning_parser="granite")) == "granite"


def test_the_device_is_what_was_asked_for_or_what_is_here() -> None:
    assert device_of(VLLM, has_gpu=True) == "cuda"
    assert device_of(VLLM, has_gpu=False) == "cpu"
    assert device_of(changed(VLLM, device="cpu"), has_gpu=True) == "cpu"
    with pytest.raises(EngineError, match="but there is no GPU here"):
        device_of(changed(VLLM, device="cuda"), has_gpu=False)


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_a_hidden_gpu_is_no_gpu(hidden: str) -> None:
    assert not gpu_is_here({"CUDA_VISIBLE_DEVICES": hidden})
