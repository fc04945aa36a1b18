"""What a phase may not ask of a model or of an engine: pure, one `ConfigError` each."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Literal, TypeAlias

from vendomini.chat import MODEL
from vendomini.errors import ConfigError
from vendomini.models.facts import ModelFacts
from vendomini.phase import EngineSettings
from vendomini.schema import nearest, shown

Real: TypeAlias = Literal["hf", "vllm", "openai"]
"""The backends that have a model, unlike the scripted one."""

DTYPES = ("auto", "float32", "bfloat16", "float16")

_EVERY_SERVER = frozenset({"backend", "concurrency", "start_timeout_s", "request_timeout_s"})
_OWN_PROCESS = _EVERY_SERVER | {
    "policy",
    "gpu",
    "gpus",
    "dtype",
    "quantization",
    "max_model_len",
    "device",
    "kv_cache_memory_bytes",
    "python",
    "container",
}
ACTS: Mapping[Real, frozenset[str]] = {
    "openai": _EVERY_SERVER | {"base_url"},
    "hf": _OWN_PROCESS | {"attn_implementation"},
    "vllm": _OWN_PROCESS
    | {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "gpu_memory_utilization",
        "block_size",
        "enable_prefix_caching",
        "enforce_eager",
        "reasoning_parser",
    },
}
"""Which settings of `engine` act, by backend."""

_JINJA = re.compile(r"{[{%].*?[%}]}", re.DOTALL)
_SWITCH = re.compile(r"""(?<![.\w"'<])(?:enable_)?thinking(?![\w"'>])""")


def check_window(
    allowed: int | None, name: str, *, context_length: int | None, max_model_len: int | None
) -> None:
    """Refuse lengths in tokens beyond what the model allows. None: not set, or not known."""
    if allowed is None:
        return
    asked = {
        f"{MODEL}.context_length": context_length,
        "engine.max_model_len": max_model_len,
    }
    for key, tokens in asked.items():
        if tokens is not None and tokens > allowed:
            raise ConfigError(
                f"`{key}` is `{tokens}`, but the longest context of model `{name}` is `{allowed}` "
                "tokens",
                hint=f"use at most `{key}={allowed}`",
            )


def check_lengths(engine: EngineSettings, context_length: int | None) -> None:
    """Refuse an engine whose conversations are shorter than the phase says they are."""
    if (
        engine.max_model_len is not None
        and context_length is not None
        and engine.max_model_len < context_length
    ):
        raise ConfigError(
            f"`engine.max_model_len` is `{engine.max_model_len}`, less than "
            f"`{MODEL}.context_length`, `{context_length}`",
            hint="the conversation's window is part of the experiment: leave `max_model_len` away, "
            f"or play shorter windows with `{MODEL}.context_length={engine.max_model_len}`",
        )


def check_conversation(facts: ModelFacts, name: str, *, thinking: Iterable[str]) -> None:
    """Refuse to chat with a model that has no tokenizer or template, or to switch thinking where
    its template has no switch. `thinking` are all values of that setting."""
    if not facts.has_tokenizer:
        raise ConfigError(
            f"model `{name}` has no tokenizer in `{facts.folder}`",
            hint="download the model again; a tokenizer is a file such as tokenizer.json",
        )
    if facts.chat_template is None:
        raise ConfigError(
            f"model `{name}` has no chat template in `{facts.folder}`: it is no model to talk to",
            hint="use its chat or instruct version, or put its chat_template.jinja there",
        )
    for value in thinking:
        if value != "default" and not _can_switch_thinking(facts.chat_template):
            raise ConfigError(
                f"`{MODEL}.thinking` is `{value}`, but the chat template of model `{name}` has "
                "no switch for it (`enable_thinking` or `thinking`)",
                hint=f"use `{MODEL}.thinking=default`",
            )


def check_tensor_parallel(facts: ModelFacts, name: str, size: int) -> None:
    """Refuse a tensor parallelism that does not divide the model's attention heads."""
    heads = facts.num_attention_heads
    if heads is not None and heads % size:
        legal = [str(number) for number in range(1, heads + 1) if heads % number == 0]
        raise ConfigError(
            f"`engine.tensor_parallel_size` is `{size}`, which does not divide the `{heads}` "
            f"attention heads of model `{name}`",
            hint=f"it may be {', '.join(legal)}",
        )


def check_dtype(dtype: str | None) -> None:
    """Refuse a word that is no dtype of an engine with a model."""
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(
            f"`engine.dtype` is `{shown(dtype)}`, which is not among {_listed(DTYPES)}",
            hint=f"did you mean `{_nearest_dtype(dtype)}`?",
        )


def check_base_url(engine: EngineSettings, backend: str) -> None:
    """Refuse a backend elsewhere without its address, and an address that leads nowhere."""
    if backend != "openai":
        return
    if not engine.base_url:
        raise ConfigError(
            "`engine.backend` is `openai`, but `engine.base_url` does not say where the server is",
            hint="give its address, such as engine.base_url=http://127.0.0.1:8000/v1",
        )
    if not re.match(r"https?://[^/\s]+", engine.base_url):
        raise ConfigError(
            f"`engine.base_url` is `{shown(engine.base_url)}`, which is no address of a server",
            hint="give one such as http://127.0.0.1:8000/v1",
        )


def check_all_act(engines: Iterable[tuple[Real, EngineSettings]]) -> None:
    """Refuse a setting that acts on no group of a phase.

    `engines` are each group's backend and settings. A phase that compares backends may have
    settings for one of them: only what acts nowhere is refused.
    """
    idle: dict[str, tuple[Real, object]] = {}
    acting: set[str] = set()
    for backend, engine in engines:
        for field in fields(EngineSettings):
            value = getattr(engine, field.name)
            if value == field.default or _is_usual(field.name, value):
                continue
            if field.name in ACTS[backend]:
                acting.add(field.name)
            else:
                idle.setdefault(field.name, (backend, value))
    for name, (backend, value) in idle.items():
        if name not in acting:
            raise ConfigError(
                f"`engine.{name}` is `{shown(value)}`, but does nothing with backend `{backend}`",
                hint=_instead(name, backend),
            )


# -- private -------------------------------------------------------------------------------


def _can_switch_thinking(template: str) -> bool:
    return any(_SWITCH.search(code) for code in _JINJA.findall(template))


def _nearest_dtype(word: str) -> str:
    short = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32"}
    return short.get(word.lower()) or nearest(word, DTYPES)


def _is_usual(name: str, value: object) -> bool:
    """One GPU along each dimension is what every backend does."""
    return name in ("tensor_parallel_size", "pipeline_parallel_size") and value == 1


def _instead(name: str, backend: Real) -> str:
    if backend == "hf" and name in ("tensor_parallel_size", "pipeline_parallel_size"):
        return (
            "leave it away: `hf` spreads a model's layers over its GPUs by itself; "
            "or use engine.backend=vllm"
        )
    users = [f"engine.backend={other}" for other in ACTS if name in ACTS[other]]
    if name in ("script", "latency_s"):
        users = ["engine.backend=scripted"]
    return f"leave it away, or use {' or '.join(users)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
