"""What the server chooses before it loads a model, as pure functions: what is there and what was
asked go in, the choice and the log line that tells of it come out. Nothing here imports torch.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from vendomini.engines.memory import share_out
from vendomini.errors import EngineError

Capability = tuple[int, int]

DTYPES = ("auto", "float32", "bfloat16", "float16")
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ATTENTION = ("sdpa", "flash_attention_2", "eager")
QUANTIZATION = ("bitsandbytes-8bit", "bitsandbytes-4bit")

AMPERE: Capability = (8, 0)
"""Compute capability from which GPUs have bfloat16 and Flash Attention 2 runs."""

GPU_KV_SHARE = 0.8
"""Of the GPU memory that is free after loading; the rest is for activations."""

LEAST_TOKENS = 256
"""A window below this holds no conversation: the server does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A choice, and the line that tells of it (empty: nothing to tell)."""

    choice: str
    line: str = ""


def decide_device(requested: str, *, gpus_seen: int, gpus_asked: int) -> Decided:
    """``cuda`` or ``cpu``. Raises `EngineError` if the GPUs that were asked for are not there."""
    if requested == "cpu":
        return Decided(choice="cpu", line="[*] Device: cpu, as asked")
    if gpus_seen == 0:
        if requested == "cuda":
            raise EngineError(
                "`--device cuda`, but torch sees no GPU", hint="use `engine.device=auto` or `cpu`"
            )
        return Decided(choice="cpu", line="[*] Device: cpu, because torch sees no GPU")
    if gpus_asked > gpus_seen:
        raise EngineError(
            f"{gpus_asked} GPUs were asked for, but torch sees {gpus_seen}",
            hint="ask for fewer, or look at CUDA_VISIBLE_DEVICES",
        )
    return Decided(
        choice="cuda", line=f"[*] Device: cuda, {max(gpus_asked, 1)} of {gpus_seen} GPUs"
    )


def decide_dtype(
    requested: str, *, checkpoint: str | None, device: str, capability: Capability | None
) -> Decided:
    """``float32``, ``bfloat16`` or ``float16``; `checkpoint` None: its config does not say.

    Raises `EngineError` for an unknown name, and for bfloat16 on a GPU without it.
    """
    if requested not in DTYPES:
        raise EngineError(f"unknown dtype `{requested}`", hint=f"choose one of {_names(DTYPES)}")
    lacks_bfloat16 = device == "cuda" and capability is not None and capability < AMPERE
    if requested != "auto":
        if requested == "bfloat16" and lacks_bfloat16:
            raise EngineError(
                f"bfloat16 needs GPU compute capability (8, 0), this one has {capability}",
                hint="use `engine.dtype=float16`",
            )
        return Decided(choice=requested)
    # A config that does not say was written before models had any other type.
    stored = checkpoint if checkpoint in DTYPE_BYTES else "float32"
    if stored == "bfloat16" and lacks_bfloat16:
        return Decided(
            choice="float16",
            line=f"[*] Loading in float16: bfloat16 needs GPU compute capability (8, 0), "
            f"this one has {capability}",
        )
    return Decided(choice=stored)


def decide_attention(
    requested: str | None,
    *,
    device: str,
    capability: Capability | None,
    dtype: str,
    flash_installed: bool,
    supported: AbstractSet[str] = frozenset(ATTENTION),
) -> Decided:
    """The attention implementation. `supported` are those that the model's code has.

    Raises `EngineError` if the one asked for cannot be had.
    """
    missing = _why_no_flash(device, capability, dtype, flash_installed)
    if missing is None and "flash_attention_2" not in supported:
        missing = "this model has no Flash Attention 2 in transformers"
    if requested not in (None, "auto"):
        if requested not in ATTENTION:
            raise EngineError(
                f"unknown attention implementation `{requested}`",
                hint=f"choose one of {_names(ATTENTION)}",
            )
        if requested == "flash_attention_2" and missing:
            raise EngineError(
                f"`flash_attention_2` cannot be had: {missing}",
                hint="leave `engine.attn_implementation` out, or use `sdpa`",
            )
        assert requested is not None
        if requested == "sdpa" and "sdpa" not in supported:
            raise EngineError(
                "`sdpa` cannot be had: this model has no sdpa attention in transformers",
                hint="leave `engine.attn_implementation` out, or use `eager`",
            )
        if requested != "flash_attention_2":
            return Decided(choice=requested, line=f"[*] Using {requested} attention, as asked")
    if missing:
        choice = "sdpa" if "sdpa" in supported else "eager"
        return Decided(choice=choice, line=f"[*] {missing}, using {choice} attention (slower)")
    return Decided(
        choice="flash_attention_2",
        line=f"[*] Using Flash Attention 2 (GPU compute capability: {capability})",
    )


def _why_no_flash(
    device: str, capability: Capability | None, dtype: str, installed: bool
) -> str | None:
    if device == "cpu":
        return "Flash Attention needs a GPU"
    if not installed:
        return "Flash Attention not installed"
    if capability is None or capability < AMPERE:
        return f"Flash Attention needs GPU compute capability (8, 0), this one has {capability}"
    if dtype == "float32":
        return "Flash Attention needs bfloat16 or float16, not float32"
    return None


def decide_quantization(
    requested: str | None, *, checkpoint: str | None, device: str, bitsandbytes_installed: bool
) -> str | None:
    """What is to be quantised while loading: None, ``bitsandbytes-8bit`` or ``bitsandbytes-4bit``.

    A checkpoint that is quantised already (`checkpoint`: its method) needs nothing said, and
    may be called by its method. Raises `EngineError` for anything else.
    """
    if requested is None or requested == checkpoint:
        return None
    if checkpoint is not None:
        raise EngineError(
            f"the checkpoint is quantised by `{checkpoint}` and cannot be loaded as `{requested}`",
            hint="leave `engine.quantization` out",
        )
    if requested not in QUANTIZATION:
        raise EngineError(
            f"the hf engine cannot quantise to `{requested}`",
            hint=f"it can {_names(QUANTIZATION)}, and loads checkpoints that are quantised already",
        )
    if device != "cuda":
        raise EngineError(f"`{requested}` needs a GPU", hint="leave `engine.quantization` out")
    if not bitsandbytes_installed:
        raise EngineError(
            f"`{requested}` needs the package bitsandbytes", hint="pip install bitsandbytes"
        )
    return requested


def kv_bytes_per_token(config: Any, dtype_bytes: int) -> int:
    """Bytes of keys and values that one token of one sequence takes, over all layers.

    `config` is a transformers config or one with a nested ``text_config``. Sliding windows and
    layers without a cache are counted in full: the result is an upper bound.
    """
    text = getattr(config, "text_config", None) or config
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    key_dim = value_dim = head_dim
    if getattr(text, "kv_lora_rank", None):  # transformers caches what MLA expands to
        kv_heads = heads
        key_dim = text.qk_nope_head_dim + text.qk_rope_head_dim
        value_dim = text.v_head_dim
    return int(text.num_hidden_layers * kv_heads * (key_dim + value_dim) * dtype_bytes)


def kv_memory_bytes(
    asked: int | None, *, device: str, free_bytes: int, window_bytes: int = 0
) -> int:
    """Memory for keys and values; `free_bytes` is what the device has left after loading, and
    `window_bytes` what the longest conversation takes."""
    if device != "cuda":
        return share_out(free_bytes, asked=asked, window_bytes=window_bytes).bytes
    return int(free_bytes * GPU_KV_SHARE) if asked is None else asked


def decide_window(asked: int | None, *, models: int | None, kv_tokens: int) -> tuple[int, str]:
    """The longest sequence served, in tokens, and a line if it is shorter than the model's.

    `models` is the window that the model was made for; None: it does not say. What was asked for
    must fit the model and the KV cache (`kv_tokens`), else `EngineError`. If nothing was asked,
    the model's window is cut to what the KV cache holds, but not below `LEAST_TOKENS`.
    """
    hint = "lower `engine.max_model_len`, raise `engine.kv_cache_memory_bytes`, or free memory"
    if asked is not None:
        if models is not None and asked > models:
            raise EngineError(
                f"max_model_len {asked} is more than the model's own {models} tokens",
                hint="lower `engine.max_model_len`",
            )
        if asked > kv_tokens:
            raise EngineError(
                f"the KV cache holds {kv_tokens} tokens, "
                f"which is less than one sequence of max_model_len {asked}",
                hint=hint,
            )
        return asked, ""
    least = min(LEAST_TOKENS, models or LEAST_TOKENS)
    if kv_tokens < least:
        raise EngineError(
            f"the KV cache holds {kv_tokens} tokens, which is less than one sequence of {least}",
            hint=hint,
        )
    if models is not None and models <= kv_tokens:
        return models, ""
    line = f"[*] max_model_len is {kv_tokens} tokens: the KV cache holds no more (model: {models})"
    return kv_tokens, line


def _names(choices: tuple[str, ...]) -> str:
    return ", ".join(f"`{choice}`" for choice in choices)
