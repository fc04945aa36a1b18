"""Why an engine ended, read from its log, and what its log says of how a start goes on: pure.

A log holds the lines of several processes, some with a level. What a warning tells, its traceback
too, ended nothing. Of the errors of one process the last is the cause: earlier ones it has
survived. Of several processes it is the one that failed first: the others lost it.
"""

import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Weight: TypeAlias = Literal["error", "doubtful", "said"]
"""Whether it is known that an exception was none of a warning's, whether it may have been one, or
whether it is an error's text without an exception."""

SAME_END_S = 60.0
"""What failed longer before the last error was survived."""

# Whose line it is: `(EngineCore pid=123) `, as vLLM marks its processes, or torchrun's `[rank0]: `.
_PROCESS = re.compile(r"^(?:\((?P<process>\w+[^)]*)\)|\[(?P<rank>rank\d+)\]:) ?")
_DATE = r"(?:\d{4}-)?(?P<month>\d\d)-(?P<day>\d\d)[ T](?P<clock>\d\d:\d\d:\d\d)[\d.,+:Z]*"
_LEVEL = r"(?P<level>DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)"
_MARKS = (
    # vLLM: `ERROR 11-21 06:41:22 [core.py:12] `, before each line of a message.
    re.compile(rf"^{_LEVEL}\s+{_DATE}\s+\[[^\]]*\]\s?"),
    # Python's: `WARNING:name:`, `WARNING:  `, `[WARNING] `.
    re.compile(rf"^\[?{_LEVEL}\]?(?::[\w.]+:|:|(?<=\])|\s+-)\s*"),
    # With a time: `2026-11-27 10:00:00,1 - name - WARNING - `, `[2026-11-27 10:00:00] WARNING: `.
    re.compile(
        rf"^\[?{_DATE}\]?,?(?:\s*[-|]?\s*[\w.]+\s*[-|:])?\s*[-|]?\s*\[?{_LEVEL}\b\]?\s*[-|:]?\s*"
    ),
    # torch's, in C++: `[W1127 10:00:00.1 file.cpp:12] `.
    re.compile(
        r"^\[(?P<letter>[DIWEF])(?P<month>\d\d)(?P<day>\d\d) (?P<clock>\d\d:\d\d:\d\d)[^\]]*\]\s*"
    ),
)
_SOFT = ("DEBUG", "INFO", "WARNING", "WARN", "D", "I", "W")

_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*(\w*(?:Error|Exception|Interrupt|Exit))\b:?\s*(.*)$")
_TRACEBACK = "Traceback (most recent call last):"
# How a traceback ends, whatever its exception is called: `triton.runtime.errors.OutOfResources: `.
_ENDED = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)(?::\s*(.*))?$")
# Python could raise it to nobody, mostly while it cleans up.
_IGNORED = re.compile(r"^Exception ignored (?:in|on|while)\b")
_COLOURS = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_CHAINED = re.compile(
    r"^(?:During handling of the above exception, another exception occurred"
    r"|The above exception was the direct cause of the following exception):$"
)
# One request's failure is its asker's to tell: the server has lived on.
_OWN = re.compile(r"^\[!\](?! a request failed: )\s*(.*)$")
_NO_MODULE = re.compile(r"No module named '?(?P<module>[\w.]+)'?")
# Python itself, which was to run a module: `/usr/bin/python3: No module named vllm`.
_NOT_RUN = re.compile(
    r"^\S*python[\d.]*: (?:Error while finding module specification for .*)?\(?"
    r"(?:ModuleNotFoundError: )?No module named '?(?P<module>[\w.]+)"
)
# Of a process of its own that was killed, vLLM tells nothing more, and tells it as a warning.
_LOST = re.compile(
    r"Worker proc (?P<name>\S+) died unexpectedly \(exit code: (?P<code>-?\d+)\)"
    r"|engine core exited unexpectedly"
)
_USAGE = re.compile(r"^[\w.]+\.py: error: (.*)$")
_ONLY_A_CONSEQUENCE = (
    "Engine core initialization failed",
    "EngineDeadError",
    "EngineCore failed to start",
    "EngineCore encountered",
    "root cause above",
    "for the root cause",
    "cancelled",
    "CancelledError",
    "SystemExit",
    "Engine process failed to start",
    "WorkerProc initialization failed",
    "WorkerProc failed to start",
    "Engine core proc",
)

_ESTIMATED = re.compile(r"estimated maximum model length is (\d+)")
HINTS = (
    ("KV cache is needed", "lower `engine.max_model_len`, or give it more KV memory or GPUs"),
    ("No available memory for the cache", "give it more GPUs, or raise `gpu_memory_utilization`"),
    ("warming up sampler", "lower `engine.concurrency`, or `engine.gpu_memory_utilization`"),
    ("out of memory", "give it more GPUs, or a smaller `engine.max_model_len`"),
    ("Free memory on device", "something else uses the GPU: free it, or ask for a GPU of your own"),
    (
        "attention heads",
        "choose an `engine.tensor_parallel_size` that divides the number of attention heads",
    ),
    (
        "is larger than the number of available GPUs",
        "ask for as many GPUs as `engine.tensor_parallel_size` times "
        "`engine.pipeline_parallel_size`",
    ),
    (
        "greater than the derived max_model_len",
        "lower `engine.max_model_len` to what the model allows",
    ),
    ("Bfloat16 is only supported", "use `engine.dtype=float16` on this GPU"),
    (
        "failed to be inspected",
        "its packages do not fit each other: name an environment with a whole vLLM by "
        "`engine.python`",
    ),
    (
        "are not supported for now",
        "name a newer vLLM by `engine.python`, or use `engine.backend=hf`",
    ),
    (
        "does not recognize this architecture",
        "name an environment with a newer transformers by `engine.python`",
    ),
    (
        "Failed to infer device type",
        "no GPU is seen there, or vLLM was built for another kind of machine",
    ),
    ("driver on your system is too old", "the wheel needs a newer driver: use an older one"),
    ("unsupported toolchain", "the wheel needs a newer driver: use an older one"),
    (
        "Timed out waiting for engine core",
        "keep the weights on a disk of the node, or set VLLM_ENGINE_READY_TIMEOUT_S higher",
    ),
    ("NCCL error", "set NCCL_DEBUG=INFO: the network, or too small a /dev/shm"),
    ("RPC call to", "a process of it hung: the network between GPUs, or too long a compilation"),
    (
        "flash_attn",
        "flash-attn was built for another torch or system: install one that fits, or remove it",
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
    """What ended the engine, in one line; None if the log tells of no error.

    What an engine of ours says (`[!] ...`) is believed first.
    """
    log = _COLOURS.sub("", log)
    for line in log.splitlines():
        own = _OWN.match(_of_process(line)[1])
        if own:
            return own[1].rstrip()
    ends = [end for lines in _by_process(log).values() if (end := _last(lines)) is not None]
    if not ends:
        return None
    for weight in ("error", "doubtful", "said"):
        heavy = [end for end in ends if end.weight == weight]
        if heavy:
            ends = heavy
            break
    late = max(end.time for end in ends)
    alike = [end for end in ends if end.time >= late - SAME_END_S or not end.time]
    return min(alike, key=lambda end: end.place).cause


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a process without its marks. `time` is in seconds, 0.0: not known."""

    place: int
    text: str
    weight: Weight | None  # None: it tells of no error, whatever it says
    time: float
    is_marked: bool


@dataclass(frozen=True, slots=True)
class _End:
    """What a process may have ended of."""

    place: int
    time: float
    weight: Weight
    cause: str
    is_lost: bool = False  # a process of its own went first


@dataclass(slots=True)
class _Reader:
    """Tells the weights of one process's lines, one after the other."""

    lines: list[_Line] = field(default_factory=list)
    under: Weight | None = "error"  # what an unmarked line is
    has_raised: bool = False

    def read(self, place: int, text: str, mark: re.Match[str] | None, time: float) -> None:
        if mark is not None:
            level = mark.groupdict().get("level") or mark["letter"]
            is_soft = level in _SOFT
            # vLLM marks each line of a message: what it does not mark is another matter.
            is_whole = mark.re is _MARKS[0]
            self.under = "doubtful" if is_soft and not is_whole else "error"
            self.has_raised = False
            weight: Weight | None = None if is_soft else "error"
            self.lines.append(_Line(place, text[mark.end() :], weight, time, is_marked=True))
            return
        if self.under == "doubtful" and self.has_raised and text.strip():
            # The warning's traceback has ended, unless this one is chained to it.
            if _CHAINED.match(text):
                self.has_raised = False
            else:
                self.under = "error"
        self.lines.append(_Line(place, text, self.under, time, is_marked=False))
        if self.under == "doubtful" and _RAISED.match(text):
            self.has_raised = True


def _by_process(log: str) -> dict[str, list[_Line]]:
    """The lines of each process, in order."""
    readers: dict[str, _Reader] = {}
    time = 0.0
    for place, line in enumerate(log.splitlines()):
        name, text = _of_process(line)
        mark = next((found for each in _MARKS if (found := each.match(text))), None)
        if mark is not None:
            time = _time(mark) or time
        readers.setdefault(name, _Reader()).read(place, text.rstrip(), mark, time)
    return {name: reader.lines for name, reader in readers.items()}


def _of_process(line: str) -> tuple[str, str]:
    """Whose line it is (the last of several that hand it on), and what stands behind the names."""
    name = ""
    while (process := _PROCESS.match(line)) and (not name or "pid=" in process[0]):
        name = process["process"] or process["rank"]
        line = line[process.end() :]
    return name, line


def _time(mark: re.Match[str]) -> float:
    told = mark.groupdict()
    if not told.get("clock"):
        return 0.0
    hours, minutes, seconds = (int(part) for part in told["clock"].split(":"))
    days = int(told["month"]) * 31 + int(told["day"])
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _last(lines: list[_Line]) -> _End | None:
    """What a process ended of, by its last error that is no consequence of something else."""
    found: _End | None = None
    for chain in _chains(_ends(lines)):
        if found is not None and found.is_lost:
            break
        known = [end for end in chain if hint_for(end.cause)]
        end = (known or chain)[-1]
        if found is None or _WEIGHTS[end.weight] > _WEIGHTS[found.weight]:
            found = end
        elif end.weight == found.weight and not found.cause.startswith(end.cause):
            found = end  # else it is told once more, perhaps cut short
    return found


_WEIGHTS = {"said": 0, "doubtful": 1, "error": 2}


def _ends(lines: list[_Line]) -> Iterator[tuple[_End, bool]]:
    """Each error of a process, and whether it is chained to the one before."""
    is_chained = False
    traces = _Traces()
    for number, line in enumerate(lines):
        traces.read(line.text)
        if traces.ignores:
            is_chained = False
            continue
        lost = _LOST.search(line.text)
        if lost:
            cause = _ended(lost["name"] or "EngineCore", int(lost["code"] or -signal.SIGKILL))
            yield _End(line.place, line.time, "error", cause, is_lost=True), False
            continue
        if line.weight is None:
            continue
        if _CHAINED.match(line.text):
            is_chained = True
            continue
        following = [each.text for each in lines[number + 1 : number + 20]]
        cause_said = _cause_in(line.text, following, ends_trace=traces.ends)
        if cause_said is None:
            if line.is_marked and _says_something(line.text):
                yield _End(line.place, line.time, "said", line.text.strip()), False
            continue
        if not any(words in line.text for words in _ONLY_A_CONSEQUENCE):
            yield _End(line.place, line.time, line.weight, cause_said), is_chained
        is_chained = False


@dataclass(slots=True)
class _Traces:
    """Tells of each line whether a traceback ends on it, and whether it is one that was ignored."""

    ends: bool = False
    ignores: bool = False
    _is_inside: bool = False  # of a traceback, before its exception
    _is_ignored: bool = False
    _was_ignored: bool = False  # until something else than a chained one follows

    def read(self, text: str) -> None:
        self.ends = False
        if _IGNORED.match(text) or (self._was_ignored and _CHAINED.match(text)):
            self._is_ignored = self.ignores = True
            return
        goes_on = not text.strip() or text.startswith((" ", "\t")) or text == _TRACEBACK
        if text == _TRACEBACK:
            self._is_inside = True
        if goes_on:
            self.ignores = self._is_ignored
            return
        is_raised = (_ENDED if self._is_inside else _RAISED).match(text) is not None
        self.ends = self._is_inside and is_raised
        self.ignores = self._is_ignored and is_raised
        self._was_ignored = self.ignores
        self._is_inside = self._is_ignored = False


def _chains(ends: Iterable[tuple[_End, bool]]) -> list[list[_End]]:
    """Exceptions that were raised in the handling of one another, together."""
    chains: list[list[_End]] = []
    for end, is_chained in ends:
        if is_chained and chains and chains[-1][-1].weight == end.weight:
            chains[-1].append(replace(end, place=chains[-1][0].place))
        else:
            chains.append([end])
    return chains


def _cause_in(text: str, following: list[str], *, ends_trace: bool) -> str | None:
    """The error that begins on a line; None: it begins none."""
    absent = _NOT_RUN.match(text)
    if absent:
        return f"No module named '{absent['module']}'"
    usage = _USAGE.match(text)
    if usage:
        return _said(usage[1], following)
    raised = _RAISED.match(text) or (_ENDED.match(text) if ends_trace else None)
    if raised is None:
        return None
    missing = _NO_MODULE.match(raised[2] or "")
    if missing and raised[1] in ("ModuleNotFoundError", "ImportError"):
        return f"No module named '{missing['module']}'"
    return f"{raised[1]}: {_said(raised[2] or '', following)}".rstrip(": ")


def _says_something(text: str) -> bool:
    """Whether an error's line tells more than that a traceback, or another process's, follows."""
    words = text.strip()
    return (
        bool(words)
        and not text.startswith((" ", "\t"))
        and words != _TRACEBACK
        and not any(words_of in words for words_of in _ONLY_A_CONSEQUENCE)
    )


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
    estimated = _ESTIMATED.search(cause)
    if estimated:
        return f"set `engine.max_model_len` to {estimated[1]}, or give it more KV memory or GPUs"
    for words, hint in HINTS:
        if words.lower() in cause.lower():
            return hint
    return ""


def progress_in(log: str) -> str | None:
    """The last line that says how far a start has come; None if there is none."""
    found = PROGRESS.findall(_COLOURS.sub("", log))
    return found[-1].strip() if found else None
