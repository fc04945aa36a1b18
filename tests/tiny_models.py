"""Models small enough to be made on the spot: real architectures, random weights, a byte-level
tokenizer trained on what the tests say, and a chat template. Nothing is downloaded.
"""

from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

Architecture: TypeAlias = Literal["llama", "qwen2", "qwen3", "internlm3", "gemma2"]
Template: TypeAlias = Literal["plain", "no system", "reasoning", "reasoning, no system", "none"]

ROLES = "<|system|>", "<|user|>", "<|assistant|>"
END = "<|end|>"

# Append-only: the rendering of a conversation begins with that of each shorter one.
PLAIN = """{%- for message in messages -%}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"""

# As Gemma's: a conversation that begins with a system message is an error.
REFUSE_SYSTEM = """{%- if messages[0]['role'] == 'system' -%}
{{ raise_exception('System role not supported') }}
{%- endif -%}"""

# As Qwen3's: what an assistant thought in earlier turns is left out, and thinking can be
# switched off by an empty thought.
REASONING = """{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- if message['role'] == 'assistant' and '</think>' in content -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{ '<|' + message['role'] + '|>' + content + '<|end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{ '<think>\\n\\n</think>\\n\\n' }}
{%- endif -%}
{%- endif -%}"""

TEMPLATES: dict[Template, str | None] = {
    "plain": PLAIN,
    "no system": REFUSE_SYSTEM + PLAIN,
    "reasoning": REASONING,
    "reasoning, no system": REFUSE_SYSTEM + REASONING,
    "none": None,
}


def tiny_model(
    folder: Path,
    architecture: Architecture = "llama",
    *,
    template: Template = "plain",
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 2,
    key_value_heads: int = 2,
    head_dim: int = 32,
    intermediate_size: int | None = None,
    vocabulary: int = 512,
    max_position_embeddings: int = 2048,
    text: str = "",
    seed: int = 0,
) -> Path:
    """Write a model into `folder`: config, float32 weights, tokenizer, chat template.

    The environment of vLLM does not know `internlm3`; its CPU attention takes no `head_dim` below
    32. `text` is what the tokenizer is trained on beside a little English and JSON: with more of
    it, prompts get fewer tokens.
    """
    import torch
    from transformers import (
        Gemma2Config,
        Gemma2ForCausalLM,
        InternLM3Config,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    tokenizer = _tokenizer(vocabulary, text, TEMPLATES[template])
    shape: dict[str, Any] = {
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size or 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": max_position_embeddings,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids(END),
        "pad_token_id": tokenizer.convert_tokens_to_ids(END),
        "tie_word_embeddings": False,
    }
    if architecture != "qwen2":  # Qwen2's is always hidden size over heads
        shape["head_dim"] = head_dim
    torch.manual_seed(seed)
    model: Any
    match architecture:
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**shape))
        case "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**shape))
        case "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**shape))
        case "gemma2":  # without sdpa; every second layer sees a window
            model = Gemma2ForCausalLM(Gemma2Config(**shape, sliding_window=64))
        case "internlm3":  # a Llama whose config is a kind of its own
            model = LlamaForCausalLM(InternLM3Config(**shape))
    with torch.no_grad():
        # As initialised the logits are nearly flat, and low bits would decide between tokens.
        model.lm_head.weight.normal_(std=0.5)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(vocabulary: int, text: str, template: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, *ROLES, "<think>", "</think>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*_CORPUS, text], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, chat_template=template
    )


_CORPUS = [
    "The quick brown fox orders twelve boxes from the second supplier on day three.",
    msgspec.json.encode(
        {"tool": "tool_check_inbox", "args": {}, "success": True, "messages": [], "day": 12}
    ).decode(),
    msgspec.json.encode(
        {"supplier_id": "supplier_1", "sku": "sku_2", "quantity": 10, "budget": 9876.54}
    ).decode(),
]
