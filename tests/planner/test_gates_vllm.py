"""The gates' figures for vLLM, against the vLLM that is installed."""

import json
import subprocess

import pytest

from tests.live.engines import vllm_python
from vendomini.planner.gates import NO_FLOAT16, VLLM_CAPABILITY, least_capability

PROBE = """
import json
from vllm.config.model import _FLOAT16_NOT_SUPPORTED_MODELS as no_float16
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS, get_quantization_config
least = {name: get_quantization_config(name).get_min_capability() for name in QUANTIZATION_METHODS}
print(json.dumps([least, sorted(no_float16)]))
"""


@pytest.mark.vllm
def test_the_gates_are_those_of_the_installed_vllm() -> None:
    done = subprocess.run(
        [vllm_python(), "-c", PROBE], capture_output=True, text=True, check=True, timeout=500
    )
    least, no_float16 = json.loads(done.stdout.splitlines()[-1])
    assert sorted(NO_FLOAT16) == no_float16
    judged = {name: least_capability(name, "vllm") for name in least}
    # What the gates have no rule for is left to the engine.
    assert {name for name, found in judged.items() if found is None} <= {
        "humming",
        "online",
        "int8_per_channel_weight_only",
    }
    for name, found in judged.items():
        if found is not None:
            assert found == max(least[name] / 10, VLLM_CAPABILITY), name
    for gone in ("bitsandbytes", "gguf"):
        assert gone not in least
        assert least_capability(gone, "vllm") is None
