"""What we need of the Prometheus text an engine's server tells about itself. Pure."""

import re
from dataclasses import dataclass

from vendomini.chat import Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A server's counters, summed over its engines. None: it does not tell that one.

    `running` and `waiting` are requests now, the others count since it started.
    `prefix_queries` and `prefix_hits` are tokens looked for in the prefix cache and found.
    `kv_cache_tokens` is how many tokens fit its KV cache.
    """

    running: int | None = None
    waiting: int | None = None
    preemptions: int | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    kv_cache_tokens: int | None = None

    @property
    def load(self) -> Load | None:
        """None if the server does not say how many requests it has."""
        if self.running is None or self.waiting is None:
            return None
        return Load(running=self.running, waiting=self.waiting, preemptions=self.preemptions or 0)


def parse_metrics(text: bytes) -> Counters:
    """Reads vLLM's names, and the same ones with the prefix `vendomini:`; skips all others."""
    sums: dict[str, float] = {}
    for line in _SAMPLE.finditer(text):
        name = line["name"].decode()
        value = _kv_cache_tokens(line["labels"]) if name == _INFO else _number(line["value"])
        if value is not None:
            field = _FIELDS[name]
            sums[field] = sums.get(field, 0) + value
    return Counters(**{field: round(value) for field, value in sums.items()})


def attention_in(text: bytes) -> str | None:
    """By which attention a server of ours computes; None: it does not tell."""
    found = _ATTENTION.search(text)
    return None if found is None else found[1].decode()


def _kv_cache_tokens(labels: bytes | None) -> float | None:
    told = {name: int(value) for name, value in _WHOLE_NUMBER.findall(labels or b"")}
    if b"kv_cache_size_tokens" in told:
        return told[b"kv_cache_size_tokens"]
    # What an older vLLM tells instead.
    if b"num_gpu_blocks" in told and b"block_size" in told:
        return told[b"num_gpu_blocks"] * told[b"block_size"]
    return None


def _number(value: bytes) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number - number == 0 else None  # neither NaN nor infinite


_INFO = "cache_config_info"
_FIELDS = {
    "num_requests_running": "running",
    "num_requests_waiting": "waiting",
    "num_preemptions_total": "preemptions",
    "prompt_tokens_total": "prompt_tokens",
    "generation_tokens_total": "generation_tokens",
    "prefix_cache_queries_total": "prefix_queries",
    "prefix_cache_hits_total": "prefix_hits",
    _INFO: "kv_cache_tokens",
}
# Only the names above: most of a page is histograms, thousands of lines.
_SAMPLE = re.compile(
    rb"^(?:vllm|vendomini):(?P<name>"
    + "|".join(_FIELDS).encode()
    + rb")(?P<labels>\{.*\})?[ \t]+(?P<value>[^ \t\r\n]+)",
    re.MULTILINE,
)
_ATTENTION = re.compile(rb'^vendomini:cache_config_info\{(?:.*,)?attention="(\w+)"', re.MULTILINE)
_WHOLE_NUMBER = re.compile(rb'[{,]([a-z_]+)="(\d+)"')
