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
IGNORED = """\
(EngineCore pid=8) ValueError: the cause
(EngineCore pid=8) Exception ignored in: <function Pool.__del__ at 0x7f>
(EngineCore pid=8) Traceback (most recent call last):
(EngineCore pid=8)   File "pool.py", line 271, in __del__
(EngineCore pid=8)     self._change_notifier.put(None)
(EngineCore pid=8) OSError: [Errno 9] Bad file descriptor
(EngineCore pid=8) 
(EngineCore pid=8) During handling of the above exception, another exception occurred:
(EngineCore pid=8) 
(EngineCore pid=8) Traceback (most recent call last):
(EngineCore pid=8) TypeError: 'NoneType' object is not callable
"""
IGNORED_ALONE = """\
Exception ignored in: <_io.TextIOWrapper name='<stdout>' mode='w' encoding='utf-8'>
BrokenPipeError: [Errno 32] Broken pipe
"""
TWO_NAMES = """\
(Worker pid=750) (Worker_TP1 pid=750) ERROR 11-21 06:41:22 [m.py:9] ValueError: the cause
(Worker pid=749) (Worker_TP0 pid=749) ERROR 11-21 06:41:23 [m.py:9] RuntimeError: lost the other
"""
TRITON = """\
Traceback (most recent call last):
  File "compiler.py", line 400, in _init_handles
    raise OutOfResources(self.metadata.shared, max_shared, "shared memory")
triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 131072
"""
COLOURED = (
    "\x1b[0;36m(EngineCore pid=8)\x1b[0;0m \x1b[31mERROR\x1b[0m 11-21 06:41:22 [core.py:9] "
    "ValueError: the cause\n"
)


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
        (IGNORED, "ValueError: the cause", ""),
        ("ValueError: the cause\n" + IGNORED_ALONE, "ValueError: the cause", ""),
        (IGNORED_ALONE + "ValueError: the cause\n", "ValueError: the cause", ""),
        (TWO_NAMES, "ValueError: the cause", ""),
        (TRITON, "OutOfResources: out of resource: shared memory, Required", ""),
        (COLOURED, "ValueError: the cause", ""),
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


WARNED = """\
(EngineCore pid=411) WARNING 11-27 10:01:02 [import_utils.py:417] Module fast_kernels was found \
but failed to import
(EngineCore pid=411) WARNING 11-27 10:01:02 [import_utils.py:417] Traceback (most recent call last):
(EngineCore pid=411) WARNING 11-27 10:01:02 [import_utils.py:417]   File "import_utils.py", line 4
(EngineCore pid=411) WARNING 11-27 10:01:02 [import_utils.py:417] ModuleNotFoundError: No module \
named 'not_there_at_all'
"""
OUT_OF_MEMORY = """\
(EngineCore pid=411) ERROR 11-27 10:02:10 [core.py:1100] EngineCore failed to start.
(EngineCore pid=411) ERROR 11-27 10:02:10 [core.py:1100] Traceback (most recent call last):
(EngineCore pid=411) ERROR 11-27 10:02:10 [core.py:1100]   File "core.py", line 1, in run
(EngineCore pid=411) ERROR 11-27 10:02:10 [core.py:1100] torch.OutOfMemoryError: CUDA out of \
memory. Tried to allocate 2.00 GiB.
(APIServer pid=300) RuntimeError: Engine core initialization failed. See root cause above. Failed \
core proc(s): {}
"""
PLAIN_CRASH = """\
Traceback (most recent call last):
  File "serve.py", line 3, in <module>
torch.OutOfMemoryError: CUDA out of memory.
"""
TRACEBACK_OF_A_WARNING = """\
Traceback (most recent call last):
  File "kernels.py", line 9, in load
ImportError: libfast.so: cannot open shared object file
"""
SOFT = [
    WARNED,
    "INFO 11-27 10:00:00 [importing.py:53] Triton not installed; No module named 'triton'\n",
    "(APIServer pid=3) WARNING 11-27 10:00:00 [x.py:1] ValueError: a value that was passed over\n",
    "DEBUG 11-27 10:00:00 [x.py:1] KeyError: 'tried'\n",
    "[W1127 10:00:00.123456 socket.cpp:200] Exception: no IPv6\n",
    f"WARNING:kernels:fast ones could not be loaded\n{TRACEBACK_OF_A_WARNING}",
    f"2026-11-27 10:00:00,123 - kernels - WARNING - not loaded\n{TRACEBACK_OF_A_WARNING}",
    f"[2026-11-27 10:00:00] WARNING loading.py:3: not loaded\n{TRACEBACK_OF_A_WARNING}",
    f"WARNING:kernels:not loaded\n{TRACEBACK_OF_A_WARNING}\nDuring handling of the above "
    f"exception, another exception occurred:\n\n{TRACEBACK_OF_A_WARNING}",
]


@pytest.mark.parametrize("soft", SOFT)
@pytest.mark.parametrize("hard", [OUT_OF_MEMORY, PLAIN_CRASH])
def test_what_a_warning_tells_is_no_cause_of_an_end(soft: str, hard: str) -> None:
    for log in (soft + hard, soft + soft + hard + soft):
        found = root_cause(log)
        assert found is not None
        assert found.startswith("OutOfMemoryError: CUDA out of memory.")
        assert "max_model_len" in hint_for(found)


@pytest.mark.parametrize("soft", SOFT[:5])
def test_a_log_with_warnings_alone_names_no_cause(soft: str) -> None:
    assert root_cause(soft) is None


def test_a_crash_right_behind_a_warning_is_told_where_there_is_no_other() -> None:
    assert root_cause(f"WARNING:root:hm\n{PLAIN_CRASH}") == "OutOfMemoryError: CUDA out of memory."


HANDLED = """\
(APIServer pid=3) ERROR 11-27 09:00:00 [serving.py:9] Error in preprocessing prompt inputs
(APIServer pid=3) ERROR 11-27 09:00:00 [serving.py:9] Traceback (most recent call last):
(APIServer pid=3) ERROR 11-27 09:00:00 [serving.py:9] ValueError: one request was odd
"""
TWO_WORKERS = """\
(Worker_TP0 pid=5) ERROR 11-27 10:02:10 [multiproc_executor.py:9] Traceback (most recent call last):
(Worker_TP0 pid=5) ERROR 11-27 10:02:10 [multiproc_executor.py:9] torch.OutOfMemoryError: CUDA out \
of memory.
(Worker_TP1 pid=6) ERROR 11-27 10:02:12 [multiproc_executor.py:9] RuntimeError: NCCL error: remote \
process exited
(EngineCore pid=4) ERROR 11-27 10:02:12 [core.py:1] RuntimeError: Worker failed with error 'CUDA \
out of memory', please check the stack trace above for the root cause
"""
CHAINED = """\
Traceback (most recent call last):
  File "auto.py", line 1, in from_pretrained
KeyError: 'sesame'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "auto.py", line 3, in from_pretrained
ValueError: The checkpoint has model type `sesame` but Transformers does not recognize this \
architecture.
"""
RAISED_FROM = """\
Traceback (most recent call last):
torch.OutOfMemoryError: CUDA out of memory.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
RuntimeError: the model could not be loaded
"""


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (HANDLED + OUT_OF_MEMORY, "OutOfMemoryError"),
        (TWO_WORKERS, "OutOfMemoryError"),
        ("Traceback (most recent call last):\nOSError: tried\n" + PLAIN_CRASH, "OutOfMemoryError"),
        (CHAINED, "ValueError: The checkpoint has model type"),
        (RAISED_FROM, "OutOfMemoryError"),
        ("/usr/bin/python3: No module named vllm\n", "No module named 'vllm'"),
        ("Traceback (most recent call last):\nImportError: No module named vllm._C\n", "No module"),
        (
            "(APIServer pid=3) ERROR 11-27 09:00:00 [x.py:9] the tokenizer's files are missing\n",
            "the tokenizer's files are missing",
        ),
        ("ERROR: the port is taken\n", "the port is taken"),
    ],
)
def test_the_cause_is_the_last_error_and_of_several_processes_the_first_to_fail(
    log: str, cause: str
) -> None:
    found = root_cause(log)
    assert found is not None
    assert found.startswith(cause)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("CUDA out of memory occurred when warming up sampler with 1024 dummy", "concurrency"),
        ("World size (4) is larger than the number of available GPUs (2) in this node", "as many"),
        ("Bfloat16 is only supported on GPUs with compute capability of at least 8.0", "float16"),
        ("Model architectures ['X'] failed to be inspected", "engine.python"),
        ("Model architectures ['X'] are not supported for now", "engine.backend=hf"),
        ("Failed to infer device type", "no GPU"),
        ("The NVIDIA driver on your system is too old", "driver"),
        ("Timed out waiting for engine core processes to start", "VLLM_ENGINE_READY_TIMEOUT_S"),
        ("NCCL error: unhandled system error", "NCCL_DEBUG"),
        ("RPC call to sample_tokens timed out.", "hung"),
        ("flash_attn_2_cuda.so: undefined symbol: _ZN3c10", "flash-attn"),
        ("8 GiB KV cache is needed ... the estimated maximum model length is 2048.", "to 2048"),
    ],
)
def test_known_words_have_a_hint(words: str, hint: str) -> None:
    assert hint in hint_for(words)


def test_a_model_with_too_short_a_window_is_told_apart_from_other_words_about_it() -> None:
    assert "what the model allows" in hint_for(TOO_LONG)
    # The engine of ours has said itself what to do.
    assert hint_for(root_cause(OWN_WITH_HINT) or "") == ""


def test_an_exception_that_was_ignored_is_no_cause() -> None:
    assert root_cause(IGNORED_ALONE) is None


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
