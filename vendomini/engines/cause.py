"""Why an engine ended, read from its log, and what its log says of how a start goes on: pure."""

import re
import signal

# vLLM marks the lines of its processes: `(EngineCore pid=123) ERROR 11-21 06:41:22 [core.py:12] `.
_MARK = re.compile(
    r"^(?:\(\w+[^)]*\)\s?)?(?:(?:ERROR|CRITICAL|WARNING|INFO|DEBUG)\s+[\d: -]+\[[^\]]*\]\s?)?"
)
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*(\w*(?:Error|Exception|Interrupt|Exit))\b:?\s*(.*)$")
# One request's failure is its asker's to tell: the server has lived on.
_OWN = re.compile(r"^\[!\](?! a request failed: )\s*(.*)$")
_NO_MODULE = re.compile(r"No module named '?(?P<module>[\w.]+)'?")
# Of a process of its own that was killed, vLLM tells nothing more.
_LOST = re.compile(
    r"Worker proc (?P<name>\S+) died unexpectedly \(exit code: (?P<code>-?\d+)\)"
    r"|engine core exited unexpectedly"
)
_USAGE = re.compile(r"^[\w.]+\.py: error: (.*)$")
_ONLY_A_CONSEQUENCE = (
    "Engine core initialization failed",
    "EngineDeadError",
    "See root cause above",
    "cancelled",
    "SystemExit",
    "Engine process failed to start",
    "WorkerProc initialization failed",
    "Engine core proc",
)

HINTS = (
    ("KV cache is needed", "lower `engine.max_model_len`, or give it more KV memory or GPUs"),
    ("No available memory for the cache", "give it more GPUs, or raise `gpu_memory_utilization`"),
    ("out of memory", "give it more GPUs, or a smaller `engine.max_model_len`"),
    ("Free memory on device", "something else uses the GPU: free it, or ask for a GPU of your own"),
    (
        "attention heads",
        "choose an `engine.tensor_parallel_size` that divides the number of attention heads",
    ),
    (
        "greater than the derived max_model_len",
        "lower `engine.max_model_len` to what the model allows",
    ),
    (
        "No module named",
        "install it there, or name the engine's own environment with `engine.python`",
    ),
    ("Not enough allowed NUMA nodes", "use `engine.tensor_parallel_size=1` on this machine"),
)

PROGRESS = re.compile(
    r"(Loading safetensors checkpoint shards:\s+\d+%|Loading weights took .*"
    r"|Graph capturing finished.*|torch\.compile takes .*|init engine .* took .*"
    r"|GPU KV cache size: .*|CPU KV cache size: .*|Model loading took .*)"
)


def root_cause(log: str) -> str | None:
    """The first thing in the log that was not the consequence of something else; None if the log
    tells of no error. One line.

    What an engine of ours says (`[!] ...`) is believed first. Of Python's exceptions the first
    one counts: later ones report that another process has ended.
    """
    lines = [_MARK.sub("", line).rstrip() for line in log.splitlines()]
    for line in lines:
        own = _OWN.match(line)
        if own:
            return own[1]
    for number, line in enumerate(lines):
        missing = _NO_MODULE.search(line)
        if missing:
            return f"No module named '{missing['module']}'"
        usage = _USAGE.match(line)
        if usage:
            return _said(usage[1], lines[number + 1 :])
        lost = _LOST.search(line)
        if lost:
            return _ended(lost["name"] or "EngineCore", int(lost["code"] or -signal.SIGKILL))
        raised = _RAISED.match(line)
        if raised is None or any(words in line for words in _ONLY_A_CONSEQUENCE):
            continue
        return f"{raised[1]}: {_said(raised[2], lines[number + 1 :])}".rstrip(": ")
    return None


def _ended(process: str, code: int) -> str:
    """`code` is a process's exit code, negative for a signal."""
    if code == -signal.SIGKILL:
        return f"its process {process} was killed, perhaps because memory ran out"
    return f"its process {process} ended unexpectedly (exit code {code})"


def _said(message: str, following: list[str]) -> str:
    """The message itself, where it only begins on the lines that follow."""
    if "validation error" in message:  # pydantic's
        said = next((line.strip() for line in following if line.startswith(" ")), "")
        return said.removeprefix("Value error, ").partition(" [type=")[0] or message
    return message or (following[0].strip() if following else "")


def hint_for(cause: str) -> str:
    """What to do about a root cause, where it is known; else where to read more is all there is."""
    for words, hint in HINTS:
        if words.lower() in cause.lower():
            return hint
    return ""


def progress_in(log: str) -> str | None:
    """The last line that says how far a start has come; None if there is none."""
    found = PROGRESS.findall(log)
    return found[-1].strip() if found else None
