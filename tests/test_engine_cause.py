"""What an engine's log says of its end, on what vLLM and transformers really wrote."""

import pytest

from vendomini.engines.cause import hint_for, progress_in, root_cause

KV_CACHE = """\
INFO 11-21 06:41:22 [api_server.py:84] vLLM API server version 0.32.0
(EngineCore pid=10741) ERROR 11-21 06:41:22 [core.py:1013] EngineCore failed to start.
(EngineCore pid=10741) ERROR 11-21 06:41:22 [core.py:1013] Traceback (most recent call last):
(EngineCore pid=10741) ERROR 11-21 06:41:22 [core.py:1013]   File "core.py", line 987, in run
(EngineCore pid=10741) ERROR 11-21 06:41:22 [core.py:1013] ValueError: To serve at least one \
request with the models's max seq len (4096), 8.0 GiB KV cache is needed, which is larger than \
the available KV cache memory (1.0 GiB).
(EngineCore pid=10741) Process EngineCore:
(EngineCore pid=10741) ValueError: To serve at least one request with the models's max seq len
(APIServer pid=10715) Traceback (most recent call last):
(APIServer pid=10715) RuntimeError: Engine core initialization failed. See root cause above. \
Failed core proc(s): {'EngineCore': 1}
"""
PYDANTIC = """\
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1) pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig
(APIServer pid=1)   Value error, Total number of attention heads (4) must be divisible by tensor \
parallel size (3). [type=value_error, input_value=ArgsKwargs((), {}), input_type=ArgsKwargs]
(APIServer pid=1)     For further information visit https://errors.pydantic.dev
"""
USAGE = """\
usage: api_server.py [-h] [--headless]
api_server.py: error: unrecognized arguments: --uds
"""
ABSENT = "/usr/bin/python3: Error while finding module specification for \
'vllm.entrypoints.openai.api_server' (ModuleNotFoundError: No module named 'vllm')\n"
REQUEST = "[!] a request failed: RuntimeError: out of memory\n"
OWN = (
    f"{REQUEST}Loading weights\n[!] there is no tokenizer in /models/m\nValueError: a consequence\n"
)
CUDA = "(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.\n"
TOO_LONG = """\
(APIServer pid=1)   Value error, User-specified max_model_len (99999) is greater than the derived \
max_model_len (max_position_embeddings=2048 or model_max_length=None in model's config.json).
"""
OWN_WITH_HINT = "[!] the KV cache holds 4 tokens; lower `engine.max_model_len`, or free memory\n"

KILLED_CORE = """\
(APIServer pid=7) WARNING 11-21 07:53:03 [core_client.py:817] [shutdown] MPClient: engine core \
exited unexpectedly; starting cleanup
(APIServer pid=7) ERROR 11-21 07:53:03 [async_llm.py:906] vllm.v1.engine.exceptions.\
EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
"""
KILLED_WORKER = """\
(EngineCore pid=8) ERROR 11-21 07:53:45 [multiproc_executor.py:315] Worker proc VllmWorker-1 \
died unexpectedly (exit code: -9), shutting down executor.
(EngineCore pid=8) ERROR 11-21 07:53:45 [core.py:1512] RuntimeError: cancelled
"""


@pytest.mark.parametrize(
    ("log", "cause", "hint"),
    [
        (KV_CACHE, "ValueError: To serve at least one request", "max_model_len"),
        (PYDANTIC, "ValidationError: Total number of attention heads (4) must be", "tensor"),
        (USAGE, "unrecognized arguments: --uds", ""),
        (ABSENT, "No module named 'vllm'", "install"),
        (OWN, "there is no tokenizer in /models/m", ""),
        (KILLED_CORE, "its process EngineCore was killed, perhaps because memory ran out", ""),
        (KILLED_WORKER, "its process VllmWorker-1 was killed, perhaps because memory ran out", ""),
        (CUDA, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", "GPUs"),
    ],
)
def test_the_first_error_that_is_no_consequence_is_the_cause(
    log: str, cause: str, hint: str
) -> None:
    found = root_cause(log)
    assert found is not None
    assert found.startswith(cause)
    assert "\n" not in found
    assert hint in hint_for(found)


def test_a_model_with_too_short_a_window_is_told_apart_from_other_words_about_it() -> None:
    assert "what the model allows" in hint_for(TOO_LONG)
    # The engine of ours has said itself what to do.
    assert hint_for(root_cause(OWN_WITH_HINT) or "") == ""


def test_a_log_without_an_error_names_no_cause() -> None:
    assert root_cause("INFO 11-21 06:41:22 [x.py:1] An error rate of 0 is fine\n") is None
    assert root_cause(REQUEST) is None
    assert hint_for("something unheard of") == ""


def test_progress_is_the_last_thing_that_was_reached() -> None:
    log = (
        "Loading safetensors checkpoint shards:   0% Completed | 0/30\r"
        "Loading safetensors checkpoint shards:  50% Completed | 15/30\n"
        "INFO [x.py:1] something else\n"
    )
    assert progress_in(log) == "Loading safetensors checkpoint shards:  50%"
    assert progress_in("") is None
