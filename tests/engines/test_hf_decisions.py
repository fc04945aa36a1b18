"""What the hf server chooses before it loads a model, and other parts of it that are pure."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig

from vendomini.engines.hf.decisions import (
    AMPERE,
    decide_attention,
    decide_device,
    decide_dtype,
    decide_quantization,
    decide_window,
    kv_bytes_per_token,
    kv_memory_bytes,
)
from vendomini.engines.hf.grammar import unsupported
from vendomini.engines.hf.loading import attentions_of
from vendomini.errors import EngineError

TURING = (7, 5)


def test_importing_the_package_loads_neither_torch_nor_transformers() -> None:
    probe = (
        "import sys, vendomini.engines.hf, vendomini.engines.hf.__main__;"
        "print(*{'torch', 'transformers', 'xgrammar'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_flash_attention_is_used_where_package_and_capability_allow() -> None:
    found = decide_attention(
        None, device="cuda", capability=AMPERE, dtype="bfloat16", flash_installed=True
    )
    assert found.choice == "flash_attention_2"
    assert found.line == "[*] Using Flash Attention 2 (GPU compute capability: (8, 0))"


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "installed", "line"),
    [
        (
            "cuda",
            AMPERE,
            "bfloat16",
            False,
            "[*] Flash Attention not installed, using sdpa attention (slower)",
        ),
        (
            "cuda",
            TURING,
            "float16",
            True,
            "[*] Flash Attention needs GPU compute capability (8, 0), this one has (7, 5), "
            "using sdpa attention (slower)",
        ),
        (
            "cuda",
            AMPERE,
            "float32",
            True,
            "[*] Flash Attention needs bfloat16 or float16, not float32, using sdpa attention "
            "(slower)",
        ),
        (
            "cpu",
            None,
            "float32",
            True,
            "[*] Flash Attention needs a GPU, using sdpa attention (slower)",
        ),
    ],
)
def test_sdpa_is_used_elsewhere_and_the_line_says_why(
    device: str, capability: tuple[int, int] | None, dtype: str, installed: bool, line: str
) -> None:
    found = decide_attention(
        None, device=device, capability=capability, dtype=dtype, flash_installed=installed
    )
    assert (found.choice, found.line) == ("sdpa", line)
    with pytest.raises(EngineError, match="`flash_attention_2` cannot be had"):
        decide_attention(
            "flash_attention_2",
            device=device,
            capability=capability,
            dtype=dtype,
            flash_installed=installed,
        )


@pytest.mark.parametrize(
    ("kind", "supported", "choice", "line"),
    [
        ("gemma2", {"flash_attention_2"}, "flash_attention_2", "[*] Using Flash Attention 2 ("),
        ("gpt_oss", set(), "eager", "[*] this model has no Flash Attention 2 in transformers, us"),
        ("bloom", set(), "eager", "[*] this model has no Flash Attention 2 in transformers, usin"),
        ("qwen3", {"sdpa", "flash_attention_2"}, "flash_attention_2", "[*] Using Flash Attenti"),
    ],
)
def test_a_model_is_loaded_with_an_attention_that_its_code_has(
    kind: str, supported: set[str], choice: str, line: str
) -> None:
    has = attentions_of(AutoConfig.for_model(kind))
    assert has == {"eager", *supported}
    given: dict[str, Any] = {"dtype": "bfloat16", "flash_installed": True, "supported": has}
    found = decide_attention(None, device="cuda", capability=AMPERE, **given)
    assert found.choice == choice
    assert found.line.startswith(line)
    here = decide_attention(None, device="cpu", capability=None, **given)
    assert here.choice == ("sdpa" if "sdpa" in supported else "eager")
    if "sdpa" not in supported:
        assert here.line.endswith("using eager attention (slower)")
        with pytest.raises(EngineError, match="`sdpa` cannot be had: this model has no sdpa"):
            decide_attention("sdpa", device="cpu", capability=None, **given)


def test_an_unknown_attention_implementation_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match="`flash`") as caught:
        decide_attention(
            "flash", device="cpu", capability=None, dtype="float32", flash_installed=False
        )
    assert "`eager`" in caught.value.hint


def test_bfloat16_becomes_float16_on_gpus_without_it_and_is_refused_when_asked_for() -> None:
    old = decide_dtype("auto", checkpoint="bfloat16", device="cuda", capability=TURING)
    assert old.choice == "float16"
    assert "(7, 5)" in old.line
    for device, capability in (("cuda", AMPERE), ("cpu", None)):
        kept = decide_dtype("auto", checkpoint="bfloat16", device=device, capability=capability)
        assert kept.choice == "bfloat16"
    with pytest.raises(EngineError, match=r"bfloat16 needs GPU compute capability \(8, 0\)"):
        decide_dtype("bfloat16", checkpoint=None, device="cuda", capability=TURING)
    with pytest.raises(EngineError, match="unknown dtype `int3`"):
        decide_dtype("int3", checkpoint=None, device="cpu", capability=None)


def test_the_device_is_what_is_there_or_what_was_asked_for() -> None:
    assert decide_device("auto", gpus_seen=0, gpus_asked=0).choice == "cpu"
    assert decide_device("auto", gpus_seen=2, gpus_asked=2).choice == "cuda"
    assert decide_device("cpu", gpus_seen=2, gpus_asked=0).choice == "cpu"
    with pytest.raises(EngineError, match="torch sees no GPU"):
        decide_device("cuda", gpus_seen=0, gpus_asked=1)
    with pytest.raises(EngineError, match="4 GPUs were asked for, but torch sees 2"):
        decide_device("auto", gpus_seen=2, gpus_asked=4)


def test_only_quantisations_that_can_be_had_are_accepted() -> None:
    def decide(
        requested: str | None, checkpoint: str | None = None, device: str = "cuda"
    ) -> object:
        return decide_quantization(
            requested, checkpoint=checkpoint, device=device, bitsandbytes_installed=True
        )

    assert decide("bitsandbytes-4bit") == "bitsandbytes-4bit"
    assert decide("awq", checkpoint="awq") is None
    assert decide(None, checkpoint="gptq") is None
    with pytest.raises(EngineError, match="cannot quantise to `awq`"):
        decide("awq")
    with pytest.raises(EngineError, match="quantised by `gptq`"):
        decide("bitsandbytes-4bit", checkpoint="gptq")
    with pytest.raises(EngineError, match="needs a GPU"):
        decide("bitsandbytes-8bit", device="cpu")


def test_the_kv_cache_is_counted_from_a_nested_config_too() -> None:
    text = SimpleNamespace(
        num_attention_heads=32, num_key_value_heads=8, hidden_size=4096, num_hidden_layers=32
    )
    # Llama 3.1 8B in bfloat16: 128 KiB a token.
    assert kv_bytes_per_token(text, 2) == 128 * 1024
    assert kv_bytes_per_token(SimpleNamespace(text_config=text), 2) == 128 * 1024
    assert kv_memory_bytes(None, device="cuda", free_bytes=100) == 80
    assert kv_memory_bytes(None, device="cpu", free_bytes=8 << 30) == 2 << 30
    assert kv_memory_bytes(None, device="cpu", free_bytes=8 << 30, window_bytes=3 << 30) == 3 << 30
    assert kv_memory_bytes(7, device="cpu", free_bytes=100) == 7
    assert kv_memory_bytes(7, device="cuda", free_bytes=100) == 7


def test_a_window_that_does_not_fit_is_refused_and_one_nobody_asked_for_is_cut() -> None:
    assert decide_window(1000, models=2000, kv_tokens=1500) == (1000, "")
    assert decide_window(None, models=2000, kv_tokens=5000) == (2000, "")
    window, line = decide_window(None, models=2000, kv_tokens=1500)
    assert window == 1500
    assert "1500" in line
    with pytest.raises(EngineError, match="holds 900 tokens, which is less than one sequence"):
        decide_window(1000, models=2000, kv_tokens=900)
    with pytest.raises(EngineError, match="holds 255 tokens"):
        decide_window(None, models=2000, kv_tokens=255)
    with pytest.raises(EngineError, match="more than the model's own 2000"):
        decide_window(3000, models=2000, kv_tokens=5000)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, "unique"),
        ({"anyOf": [{"type": "integer", "multipleOf": 2}]}, "multipleOf"),
        ({"type": "string", "format": "postcode"}, "postcode"),
        ({"type": "string", "pattern": "a+", "maxLength": 3}, "pattern"),
    ],
)
def test_what_xgrammar_would_leave_out_of_a_schema_is_named(schema: object, word: str) -> None:
    assert word in (unsupported(schema) or "")


def test_names_and_values_are_not_taken_for_keywords() -> None:
    properties = {"type": {"type": "string"}, "format": {"enum": ["x"]}, "pattern": {}}
    assert unsupported({"type": "object", "properties": properties}) is None
    assert unsupported({"const": {"type": "integer", "multipleOf": 2}}) is None


def start_in_vain(*arguments: str, key: str = "k") -> str:
    """The server's only `[!]` line when it does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "vendomini.engines.hf", "--served-model-name", "m", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"VENDOMINI_API_KEY": key, "PATH": "", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("[!]")]
    return line


def test_a_server_without_a_key_or_a_place_for_its_socket_does_not_start(tmp_path: Path) -> None:
    uds = ("--model", "x", "--uds")
    assert "VENDOMINI_API_KEY" in start_in_vain(*uds, str(tmp_path / "s"), key="")
    assert "no folder for the socket" in start_in_vain(*uds, str(tmp_path / "no" / "s"))
    assert "longer than 107 bytes" in start_in_vain(*uds, str(tmp_path / ("x" * 120)))
