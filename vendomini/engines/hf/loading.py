"""From a path or hub id to a model that is ready: device, dtype, attention, weights, capacity."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from vendomini.engines.hf.attention import Reader, Unkept
from vendomini.engines.hf.decisions import (
    DTYPE_BYTES,
    Capability,
    decide_attention,
    decide_device,
    decide_dtype,
    decide_quantization,
    decide_window,
    kv_bytes_per_token,
    kv_memory_bytes,
)
from vendomini.engines.hf.grammar import Grammars
from vendomini.engines.memory import Available, CpuCache, available_memory, told
from vendomini.errors import ConfigError, EngineError
from vendomini.hardware import GIB
from vendomini.models import read_model
from vendomini.thoughts import HARMONY_TOKENS, MARKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line. None: not asked for."""

    model: str
    served_model_name: str
    uds: Path
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantization: str | None = None
    attn_implementation: str | None = None
    max_model_len: int | None = None
    kv_cache_memory_bytes: int | None = None
    max_num_seqs: int = 256
    gpus: int = 0
    enable_prefix_caching: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that can answer. `max_model_len` and `kv_tokens` are in tokens."""

    model: Any
    reader: Reader | None  # None: its conversations cannot be kept
    tokenizer: Any
    grammars: Grammars
    device: str
    dtype: str
    attention: str
    end_ids: tuple[int, ...]
    pad_id: int
    special_ids: frozenset[int]  # that are no text
    thinks: bool  # whether its template knows marks of thoughts
    think_ids: frozenset[int]  # of all marks of thoughts that are tokens
    think_end: int | None  # that ends its thoughts; None: no token does
    vocabulary: int  # of the logits, which may be more than the tokenizer's
    max_model_len: int
    kv_tokens: int

    def text_of(self, ids: Sequence[int], *, thoughts: bool = False) -> str:
        """The text of token ids without special tokens; `thoughts` keeps the marks of thoughts.

        A character that is not complete at the end is left out, as vLLM does.
        """
        marks = self.think_ids if thoughts else ()
        kept = [token for token in ids if token not in self.special_ids or token in marks]
        return self.decode(kept).rstrip("\ufffd")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones included."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)


def load(options: Options, tell: Callable[[str], None], *, machine: Path = Path("/")) -> Loaded:
    """Load what the options name; `tell` gets a line for each choice that was made.

    `machine` is where the kernel's ``proc`` and ``sys`` are, which say what memory is available.
    Raises `EngineError` where the cause is known, and whatever transformers raises else.
    """
    check_checkpoint(options.model)
    transformers.utils.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": options.model, "revision": options.revision}
    config = transformers.AutoConfig.from_pretrained(**_given(source))
    text_config = config.get_text_config()

    gpus_seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = decide_device(options.device, gpus_seen=gpus_seen, gpus_asked=options.gpus)
    tell(device.line)
    capability = _capability(max(options.gpus, 1)) if device.choice == "cuda" else None
    dtype = decide_dtype(
        options.dtype,
        checkpoint=_dtype_name(getattr(text_config, "dtype", None)),
        device=device.choice,
        capability=capability,
    )
    attention = decide_attention(
        options.attn_implementation,
        device=device.choice,
        capability=capability,
        dtype=dtype.choice,
        flash_installed=importlib.util.find_spec("flash_attn") is not None,
        supported=attentions_of(config),
    )
    quantization = decide_quantization(
        options.quantization,
        checkpoint=_quantization_of(config),
        device=device.choice,
        bitsandbytes_installed=importlib.util.find_spec("bitsandbytes") is not None,
    )
    for line in (dtype.line, attention.line):
        if line:
            tell(line)

    tokenizer = transformers.AutoTokenizer.from_pretrained(**_given(source))
    if len(tokenizer) == 0:
        raise EngineError(f"`{options.model}` has no tokenizer", hint="name a folder that has one")
    weights: dict[str, Any] = {
        **_given(source),
        "dtype": getattr(torch, dtype.choice),
        "attn_implementation": attention.choice,
        "output_loading_info": True,
    }
    if device.choice == "cuda":
        weights["device_map"] = "auto" if options.gpus > 1 else "cuda:0"
    if quantization is not None:
        weights["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_8bit=quantization == "bitsandbytes-8bit",
            load_in_4bit=quantization == "bitsandbytes-4bit",
            bnb_4bit_compute_dtype=getattr(torch, dtype.choice),
        )
    model, found = transformers.AutoModelForCausalLM.from_pretrained(**weights)
    if found["missing_keys"]:
        # transformers would go on with random weights in their place.
        names = sorted(found["missing_keys"])
        raise EngineError(
            f"the checkpoint `{options.model}` lacks {len(names)} weights, such as `{names[0]}`",
            hint="download it again",
        )
    outside = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    if device.choice == "cuda" and outside & {"cpu", "disk"}:
        raise EngineError(
            f"`{options.model}` in {dtype.choice} does not fit {max(options.gpus, 1)} GPUs",
            hint="ask for more GPUs, or quantise",
        )
    model.eval()
    end_ids = _end_ids(model, tokenizer)
    # What a checkpoint suggests (top_k, penalties ...) would change what was asked for.
    model.generation_config = transformers.GenerationConfig()

    reader = None
    try:
        reader = Reader(model, attention.choice)
    except Unkept as why:
        tell(f"[*] Each reply reads its whole conversation, by generate: {why}")
    if reader is not None:
        token_bytes = reader.token_bytes
    else:
        token_bytes = kv_bytes_per_token(config, DTYPE_BYTES[dtype.choice])
    free = _free(device.choice, range(max(options.gpus, 1)), machine)
    memory_bytes = kv_memory_bytes(
        options.kv_cache_memory_bytes,
        device=device.choice,
        free_bytes=free.bytes,
        window_bytes=(options.max_model_len or 0) * token_bytes,
    )
    kv_tokens = memory_bytes // token_bytes
    window, line = decide_window(
        options.max_model_len,
        models=getattr(text_config, "max_position_embeddings", None),
        kv_tokens=kv_tokens,
    )
    if line:
        tell(line)
    cache = CpuCache(bytes=memory_bytes, left=max(0, free.bytes - memory_bytes))
    memory = f"{memory_bytes / GIB:.2f} GiB" if device.choice == "cuda" else told(cache, free)
    tell(f"[*] KV cache: {kv_tokens} tokens, {memory}")
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    tokens = tokenizer.get_vocab()
    template = str(tokenizer.chat_template)
    marks = [each for each in MARKS if each.start in template or each.end in template]
    ends = [tokens[each.end] for each in marks or MARKS if each.end in tokens]
    signs = [sign for each in MARKS for sign in (each.start, each.end)]
    signs += HARMONY_TOKENS if "<|channel|>" in tokens else ()
    return Loaded(
        model=model,
        reader=reader,
        tokenizer=tokenizer,
        grammars=Grammars(tokenizer, vocabulary=vocabulary, end_ids=end_ids),
        device=device.choice,
        dtype=dtype.choice,
        attention=attention.choice,
        end_ids=end_ids,
        pad_id=next((i for i in (tokenizer.pad_token_id, *end_ids) if i is not None), 0),
        special_ids=frozenset(
            [
                *tokenizer.all_special_ids,
                *(
                    token
                    for token, added in tokenizer.added_tokens_decoder.items()
                    if added.special
                ),
            ]
        ),
        thinks=bool(marks),
        think_ids=frozenset(tokens[sign] for sign in signs if sign in tokens),
        think_end=ends[0] if ends else None,
        vocabulary=vocabulary,
        max_model_len=window,
        kv_tokens=kv_tokens,
    )


def attentions_of(config: Any) -> frozenset[str]:
    """The attention implementations that transformers has for a model, of those that we know.

    Gemma 2 and gpt-oss for example have no sdpa: their scores are capped, or have sinks.
    """
    kind = transformers.AutoModelForCausalLM._model_mapping.get(type(config), None)
    found = {"eager"}
    if getattr(kind, "_supports_sdpa", True):
        found.add("sdpa")
    flash = getattr(kind, "_compatible_flash_implementations", None) or ["flash_attention_2"]
    if getattr(kind, "_supports_flash_attn", True) and "flash_attention_2" in flash:
        found.add("flash_attention_2")
    return frozenset(found)


def check_checkpoint(model: str) -> None:
    """Raises `EngineError` for a local folder that is not there, lacks a part, or has one that is
    cut short.

    A hub id, which has at most one slash and is no folder here, is left to transformers.
    """
    folder = Path(model)
    if not folder.exists() and not model.startswith((".", "/", "~")) and model.count("/") < 2:
        return
    try:
        read_model(folder)
    except ConfigError as error:
        raise EngineError(str(error), hint=error.hint) from error


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _capability(gpus: int) -> Capability:
    """The least of the GPUs that are used."""
    major, minor = min(torch.cuda.get_device_capability(index) for index in range(gpus))
    return major, minor


def _dtype_name(dtype: Any) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _quantization_of(config: Any) -> str | None:
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    return str(getattr(method, "value", method))


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The generation config's and the tokenizer's: many checkpoints name them only in one."""
    found: set[int] = set()
    for ids in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        found.update([ids] if isinstance(ids, int) else ids or [])
    return tuple(sorted(found))


def _free(device: str, gpus: range, machine: Path) -> Available:
    """Memory that is left once the model is loaded."""
    if device != "cuda":
        return available_memory(machine)
    torch.cuda.empty_cache()
    free = sum(int(torch.cuda.mem_get_info(index)[0]) for index in gpus)
    return Available(bytes=free, by="of the GPUs")
