"""What the name of a model says of it: its size, how it is stored, whose variant it is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ACTIVE = re.compile(r"(?<![a-z0-9.])a(?P<size>\d+(?:\.\d+)?)b(?![a-z0-9])")
_MIXTURE = re.compile(r"(?<![a-z0-9.])(?P<experts>\d+)x(?P<size>\d+(?:\.\d+)?)b(?![a-z0-9])")
_SIZE = re.compile(
    r"(?<![a-z0-9.])(?!\dm)(?P<effective>e)?(?P<size>\d+(?:[.p]\d+)?)(?P<unit>[bmt])(?![a-z0-9])"
)
_CONTEXT = re.compile(r"(?<=-)(?P<tokens>\d{1,4})(?P<unit>[km])(?=-|$)")  # `32K`; `1M` is no size
_JOINED = re.compile(r"(?<![a-z])(llama|qwen|gemma|phi|mistral|falcon|olmo|yi|glm)(\d)")
_BITS = re.compile(r"(gptq|awq|exl2|hqq|aqlm)-([2-8])b(?![a-z0-9])")  # `GPTQ-4b-128g` is no 4B
_WIDTHS = re.compile(r"\.(?=w\d+a\d+)")  # `.w8a8`, `quantized.w4a16`
_DATE = re.compile(r"\d{4}|\d{6}|\d{8}|v\d+(\.\d+)*")

STORED = {
    "fp8": "fp8",
    "f8": "fp8",
    "mxfp8": "mxfp8",
    "int8": "int8",
    "w8a8": "int8",
    "8bit": "int8",
    "w8a16": "gptq_int8",
    "awq": "awq",
    "gptq": "gptq",
    "int4": "int4",
    "4bit": "int4",
    "w4a16": "int4",
    "autoround": "gptq",
    "nvfp4": "nvfp4",
    "nvfp4a16": "nvfp4",
    "fp4": "nvfp4",
    "mxfp4": "mxfp4",
    "bnb": "bitsandbytes",
    "nf4": "bitsandbytes",
    "gguf": "gguf",
    "bf16": "bf16",
    "fp16": "fp16",
    "bfloat16": "bf16",
}
"""Parts of a name that tell how it is stored, with the method of `quantization`."""

_FIRST = ("awq", "gptq", "bnb", "nvfp4", "nvfp4a16", "mxfp4", "mxfp8")
"""Those that say more than the bits beside them: `GPTQ-Int4`, `bnb-4bit`."""

_BESIDE = frozenset({
    "kv", "dynamic", "static", "pertensor", "quantized", "quant", "unsloth", "hf", "mlx",
    "w4a4", "a16", "marlin", "block", "channelwise", "wa", "w8a8fp8", "int", "gs128", "g128",
    "128g", "asym", "sym", "mixed", "qat", "unquantized",
})  # fmt: skip
"""Parts that are said beside it."""

_TUNED = frozenset({
    "instruct", "coder", "math", "chat", "it", "base", "pt", "sft", "dpo", "rlhf", "preview",
    "thinking", "reasoning", "inst", "rm", "exp", "speciale", "terminus", "rlvr", "pretrained",
    "tuned", "text", "latest", "original", "online", "abliterated", "uncensored", "turbo",
})  # fmt: skip
"""Parts that tell how it was tuned."""

_MAKERS = frozenset({"meta", "nvidia", "c4ai"})


@dataclass(frozen=True, slots=True)
class SizeInName:
    """Parameters a name speaks of, in 10**9; `active` are those read for a token."""

    total: float
    active: float | None = None  # None: it speaks of all
    experts: int | None = None


def size_in_name(name: str) -> SizeInName | None:
    """``7B``, ``360M``, ``8x7B``, ``30B-A3B``, ``1T``: the last such part counts; None: no size."""
    bare = _bare(name)
    if match := _MIXTURE.search(bare):
        experts, each = int(match["experts"]), float(match["size"])
        # Experts share attention: Mixtral's 8x7B are 46.7, its 8x22B are 140.6.
        total = each * (1 + (experts - 1) * 0.82)
        return SizeInName(total, active=each * 1.8, experts=experts)
    active = _ACTIVE.search(bare)
    sizes = [_billions(match) for match in _SIZE.finditer(bare)]
    if not sizes:
        return None
    return SizeInName(sizes[-1], active=float(active["size"]) if active else None)


FP8_IN_BLOCKS = ("qwen/",)
"""Publishers whose FP8 models have a scale a block of 128 by 128, which limits how experts may be
cut; others' have one a tensor or a channel."""


def stored_as(name: str) -> str | None:
    """How its name says that it is stored, as `quantization` calls it; None: it does not say."""
    parts = _parts(name)
    if "unquantized" in parts:
        return None
    for first in _FIRST:
        if first in parts:
            eight = first in {"gptq", "bnb"} and ({"int8", "8bit"} & set(parts))
            return f"{STORED[first]}_int8" if eight else STORED[first]
    said = next((STORED[part] for part in parts if part in STORED), None)
    is_block = said == "fp8" and name.lower().startswith(FP8_IN_BLOCKS)
    return "fp8_block" if is_block else said


def context_in_name(name: str) -> int | None:
    """``32k``, ``128K``, ``1M``: the tokens a name speaks of, rounded down; None: of none."""
    found = list(_CONTEXT.finditer(_bare(name)))
    if not found:
        return None
    tokens, unit = int(found[-1]["tokens"]), found[-1]["unit"]
    if unit == "m":
        return tokens * 1_000_000 if tokens < 10 else None
    return tokens * (1024 if tokens & (tokens - 1) == 0 else 1000)


LEVELS = 4


def inner_keys(name: str) -> Iterator[str]:
    """Runs of a name's parts with a size in them, longest first: fine-tunes say of what they are.

    ``Hermes-3-Llama-3.1-8B`` has ``llama-3.1-8b`` in it, ``Qwen2.5-7B-SimPO`` begins with
    ``qwen-2.5-7b``. A run that begins a name has all its sizes: what follows is no other model.
    """
    parts = key(name, 2).split("-")
    for start in range(len(parts) - 1):
        for end in range(len(parts), start + 1, -1):
            has_size = any(_SIZE.fullmatch(part) for part in parts[start + 1 : end])
            goes_on = any(_SIZE.fullmatch(part) for part in parts[end:])
            if has_size and end - start < len(parts) and (start or not goes_on):
                yield "-".join(parts[start:end])


def key(name: str, level: int) -> str:
    """What a name has in common with those of its variants, the more the higher the `level`.

    0: its letters in lower case, without who published it. 1: without how it is stored. 2: and
    without how it was tuned. 3: and without dates and versions.
    """
    parts = _parts(name)
    if len(parts) > 1 and parts[0] in _MAKERS:
        parts = parts[1:]
    if level >= 1:
        parts = [part for part in parts if part not in STORED and part not in _BESIDE]
    if level >= 2:
        parts = [part for part in parts if part not in _TUNED]
    if level >= 3:
        parts = [part for place, part in enumerate(parts) if place < 2 or not _DATE.fullmatch(part)]
    return "-".join(parts)


# -- private -------------------------------------------------------------------------------


def _billions(match: re.Match[str]) -> float:
    size = float(match["size"].replace("p", "."))
    size *= {"t": 1000.0, "b": 1.0, "m": 0.001}[match["unit"]]
    # Gemma's `E4B` leaves out embeddings that each layer has: E2B has 5.1 to 5.4, E4B 7.9 to 8.
    return 1.5 * size + 2 if match["effective"] else size


def _parts(name: str) -> list[str]:
    bare = _JOINED.sub(r"\1-\2", _bare(name))
    return [part for part in re.split(r"[- ]+", bare) if part]


def _bare(name: str) -> str:
    """Its last part in lower case, with dashes where others have colons or underlines.

    What a router hangs on a name (``:free``) is no part of it.
    """
    bare = re.sub(r":[a-z-]+$", "", name.rstrip("/").rsplit("/", 1)[-1].lower())
    bare = re.sub(r"[_:]", "-", bare)
    return _BITS.sub(r"\1-\2bit", _WIDTHS.sub("-", bare))
