"""What a phase may not ask of a model: pure, one `ConfigError` each."""

import re
from collections.abc import Iterable

from vendomini.chat import MODEL
from vendomini.errors import ConfigError
from vendomini.models.folder import ModelFacts
from vendomini.schema import nearest, shown
from vendomini.serving import EngineSettings

DTYPES = ("auto", "float32", "bfloat16", "float16")

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
            hint="remove `engine.max_model_len`, or play shorter windows, which are another "
            f"experiment, with `{MODEL}.context_length={engine.max_model_len}`",
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
            f"model `{name}` has no chat template in `{facts.folder}`: it cannot be used for chat",
            hint="use its chat or instruct version, or put its chat_template.jinja into the folder",
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
            hint=f"possible: {', '.join(legal)}",
        )


def check_dtype(dtype: str | None) -> None:
    """Refuse a word that is no dtype of an engine with a model."""
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(
            f"`engine.dtype` is `{shown(dtype)}`, which is not among {_listed(DTYPES)}",
            hint=f"did you mean `{_nearest_dtype(dtype)}`?",
        )


# -- private -------------------------------------------------------------------------------


def _can_switch_thinking(template: str) -> bool:
    return any(_SWITCH.search(code) for code in _JINJA.findall(template))


def _nearest_dtype(word: str) -> str:
    short = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32"}
    return short.get(word.lower()) or nearest(word, DTYPES)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
