"""What a model's folder says of it, and what it may not be asked."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.model_folders import TEMPLATE, TENSOR_BYTES, hub_snapshot, model_folder, safetensors
from tests.tiny_models import tiny_model
from vendomini.engines.registry import backend_named
from vendomini.errors import ConfigError
from vendomini.models import ModelIncomplete, find_folder, read_model
from vendomini.models.checks import (
    check_conversation,
    check_dtype,
    check_lengths,
    check_tensor_parallel,
    check_window,
)
from vendomini.prepare.backends import check_all_act
from vendomini.serving import EngineSettings

SWITCH = "{% if enable_thinking is defined and not enable_thinking %}</think>{% endif %}"


def refusal(check: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        check()
    assert caught.value.hint
    return f"{caught.value} | {caught.value.hint}"


# -- where a model is -------------------------------------------------------------------------


def test_a_hub_id_is_found_by_its_branch_tag_or_commit(tmp_path: Path) -> None:
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    assert find_folder("org/name", None, environ) is None
    main = hub_snapshot(tmp_path, "org/name", commit="aaa")
    old = hub_snapshot(tmp_path, "org/name", commit="bbb", branch="v1.0")
    assert find_folder("org/name", None, environ) == main
    assert find_folder("org/name", "v1.0", environ) == old
    assert find_folder("org/name", "bbb", environ) == old
    assert find_folder("org/name", "v2.0", environ) is None


def test_a_plain_folder_of_the_cache_is_found_but_has_no_revisions(tmp_path: Path) -> None:
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    folder = model_folder(tmp_path / "org--name")
    assert find_folder("org/name", None, environ) == folder
    assert find_folder("org/name", "v1.0", environ) is None


def test_the_hubs_own_variables_say_where_the_cache_is(tmp_path: Path) -> None:
    found = hub_snapshot(tmp_path / "hub", "org/name")
    assert find_folder("org/name", None, {"HF_HOME": str(tmp_path)}) == found
    other = hub_snapshot(tmp_path / "huggingface" / "hub", "org/name")
    assert find_folder("org/name", None, {"XDG_CACHE_HOME": str(tmp_path)}) == other


def test_a_local_folder_is_itself_whether_or_not_it_is_there(tmp_path: Path) -> None:
    assert find_folder(f"{tmp_path}/a/../b", None) == tmp_path / "b"


# -- what it says -----------------------------------------------------------------------------


def test_a_models_sizes_are_read_from_its_config_and_weights(tmp_path: Path) -> None:
    facts = read_model(model_folder(tmp_path, shards=3))
    assert (facts.architecture, facts.model_type) == ("LlamaForCausalLM", "llama")
    assert (facts.num_attention_heads, facts.num_key_value_heads) == (8, 2)
    assert (facts.hidden_size, facts.layers, facts.dtype) == (512, 4, "bfloat16")
    assert facts.max_model_len == 8192
    assert 3 * TENSOR_BYTES < facts.weight_bytes < 3 * (TENSOR_BYTES + 250)
    assert (facts.chat_template, facts.has_tokenizer) == (TEMPLATE, True)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_real_model_is_read_like_one_made_by_hand(tmp_path: Path, architecture: Any) -> None:
    facts = read_model(tiny_model(tmp_path / architecture, architecture, template="reasoning"))
    assert facts.model_type == architecture
    assert (facts.num_attention_heads, facts.layers, facts.max_model_len) == (2, 2, 2048)
    assert facts.dtype == "float32"
    check_conversation(facts, "tiny", thinking=["on", "off"])


def test_the_language_part_of_a_model_of_several_senses_counts(tmp_path: Path) -> None:
    inner = {"num_attention_heads": 4, "hidden_size": 64, "max_position_embeddings": 100}
    outer: dict[str, Any] = dict.fromkeys([*inner, "num_key_value_heads"])
    facts = read_model(model_folder(tmp_path, text_config=inner, **outer))
    assert (facts.num_attention_heads, facts.max_model_len) == (4, 100)
    assert facts.num_key_value_heads == 4  # without grouping each head has its own
    assert facts.architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 16384),
        ({"rope_scaling": {"type": "dynamic", "factor": 4}}, 32768),
        ({"rope_parameters": {"full": {"rope_type": "linear", "factor": 2.0}}}, 16384),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 8192),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, 8192),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 8192),
        ({"rope_scaling": {"type": "linear", "factor": 8}, "model_type": "gemma3_text"}, 8192),
        ({"model_max_length": 131072}, 131072),
        ({"max_position_embeddings": None, "n_positions": 1024}, 1024),
        ({"max_position_embeddings": None}, None),
    ],
)
def test_the_context_is_what_vllm_derives(
    tmp_path: Path, config: dict[str, Any], tokens: int | None
) -> None:
    assert read_model(model_folder(tmp_path, **config)).max_model_len == tokens


def test_a_chat_template_is_found_wherever_it_may_be(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, template=None)
    assert read_model(folder).chat_template is None
    several = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    for written, template in (("one", "one"), (several, "d")):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": written}))
        assert read_model(folder).chat_template == template
    (folder / "chat_template.jinja").write_text("own file")
    assert read_model(folder).chat_template == "own file"


# -- what is broken ---------------------------------------------------------------------------


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def put(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


SECOND = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (remove("config.json"), "has no config.json"),
    "half a config": (cut("config.json", 40), "config.json` is damaged: it is no JSON"),
    "an empty config": (cut("config.json", 0), "config.json` is damaged: it is empty"),
    "a config that is a list": (put("config.json", "[]"), "it holds no JSON object"),
    "a web page": (put("config.json", "<!doctype html>"), "it is a web page"),
    "a shard is missing": (remove(SECOND), f"lacks 1 of the 3 weight files that `{INDEX}` names"),
    "a shard is cut": (cut(SECOND, 150), "bytes long, but its header says"),
    "a shard is empty": (cut(SECOND, 0), f"{SECOND}` is damaged: it is empty"),
    "a pointer": (
        put(SECOND, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n"),
        "pointer of Git LFS",
    ),
    "an index of nothing": (put(INDEX, "{}"), "has no `weight_map`"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_no_engine_could_load_is_refused_with_the_file(
    tmp_path: Path, name: str
) -> None:
    breaks, said = BROKEN[name]
    folder = model_folder(tmp_path / "model", shards=3)
    breaks(folder)
    message = refusal(lambda: read_model(folder))
    assert said in message
    assert str(folder) in message


def test_shards_are_counted_by_their_names_where_no_index_is(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, shards=3)
    (folder / INDEX).unlink()
    assert read_model(folder).weight_bytes > 3 * TENSOR_BYTES
    (folder / SECOND).unlink()
    assert f"lacks 1 of the 3 weight files that there should be: `{SECOND}`" in refusal(
        lambda: read_model(folder)
    )


def test_only_missing_files_could_still_be_downloaded(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelIncomplete):
        read_model(folder)
    safetensors(folder / "model-00002-of-00002.safetensors", {"weight": 10})
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        read_model(folder)
    assert not isinstance(caught.value, ModelIncomplete)


def test_no_folder_and_no_weights_are_named(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(lambda: read_model(tmp_path / "gone"))
    folder = model_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refusal(lambda: read_model(folder))


# -- what it may not be asked -----------------------------------------------------------------


def test_no_length_may_go_beyond_the_models(tmp_path: Path) -> None:
    facts = read_model(model_folder(tmp_path))
    check_window(facts.max_model_len, "m", context_length=8192, max_model_len=8192)
    said = refusal(
        lambda: check_window(facts.max_model_len, "m", context_length=8193, max_model_len=None)
    )
    assert "`agent.model.context_length` is `8193`, but the longest context" in said
    assert "`8192` tokens | use at most `agent.model.context_length=8192`" in said
    said = refusal(
        lambda: check_window(facts.max_model_len, "m", context_length=1, max_model_len=9000)
    )
    assert "`engine.max_model_len` is `9000`" in said


def test_an_engine_must_hold_the_phases_window() -> None:
    check_lengths(EngineSettings(max_model_len=2048), 2048)
    check_lengths(EngineSettings(), 2048)
    said = refusal(lambda: check_lengths(EngineSettings(max_model_len=1024), 2048))
    assert "`1024`, less than `agent.model.context_length`, `2048`" in said


def test_a_tensor_parallelism_divides_the_heads_or_is_told_what_does(tmp_path: Path) -> None:
    facts = read_model(model_folder(tmp_path))
    for size in (1, 2, 4, 8):
        check_tensor_parallel(facts, "m", size)
    said = refusal(lambda: check_tensor_parallel(facts, "m", 3))
    assert "does not divide the `8` attention heads of model `m` | possible: 1, 2, 4, 8" in said


@pytest.mark.parametrize(
    ("template", "can_switch"),
    [
        (SWITCH, True),
        ("{%- if thinking %}Think.{% endif %}", True),
        (TEMPLATE, False),
        ("{% if message.thinking %}{{ message['thinking'] }}{% endif %}", False),
        ("You are thinking.{{ '<thinking>' }}", False),
    ],
)
def test_thinking_is_switched_only_where_the_template_has_a_switch(
    tmp_path: Path, template: str, can_switch: bool
) -> None:
    facts = read_model(model_folder(tmp_path, template=template))
    check_conversation(facts, "m", thinking=["default"])
    if can_switch:
        check_conversation(facts, "m", thinking=["default", "on", "off"])
    else:
        said = refusal(lambda: check_conversation(facts, "m", thinking=["default", "on"]))
        assert "`agent.model.thinking` is `on`" in said


def test_a_conversation_needs_a_tokenizer_and_a_template(tmp_path: Path) -> None:
    base = read_model(model_folder(tmp_path / "base", template=None))
    assert "no chat template" in refusal(lambda: check_conversation(base, "m", thinking=[]))
    folder = model_folder(tmp_path / "mute")
    (folder / "tokenizer.json").unlink()
    mute = read_model(folder)
    assert "no tokenizer" in refusal(lambda: check_conversation(mute, "m", thinking=[]))


@pytest.mark.parametrize(
    ("word", "meant"), [("bf16", "bfloat16"), ("half", "float16"), ("float61", "float16")]
)
def test_a_dtype_nobody_knows_names_the_nearest(word: str, meant: str) -> None:
    assert f"did you mean `{meant}`?" in refusal(lambda: check_dtype(word))


def test_a_server_elsewhere_needs_its_address() -> None:
    openai = backend_named("openai")
    openai.check(EngineSettings(base_url="https://host/v1"))
    for base_url in (None, "", "127.0.0.1:8000", "https:///v1"):
        check = partial(openai.check, EngineSettings(base_url=base_url))
        assert "base_url" in refusal(check)


@pytest.mark.parametrize(
    ("backend", "settings", "said"),
    [
        ("vllm", {"script": "log"}, "`engine.script` is `log`, but has no effect with backend"),
        ("vllm", {"latency_s": 0.1}, "engine.backend=scripted"),
        ("vllm", {"attn_implementation": "sdpa"}, "or use engine.backend=hf"),
        ("vllm", {"base_url": "http://h"}, "or use engine.backend=openai"),
        ("hf", {"block_size": 32}, "or use engine.backend=vllm"),
        ("hf", {"enforce_eager": True}, "is `true`, but has no effect"),
        ("hf", {"tensor_parallel_size": 2}, "spreads a model's layers over its GPUs by itself"),
        ("openai", {"dtype": "float16"}, "engine.backend=hf or engine.backend=vllm"),
    ],
)
def test_a_setting_that_would_never_act_is_refused_by_name(
    backend: Any, settings: dict[str, Any], said: str
) -> None:
    assert said in refusal(lambda: check_all_act([(backend, EngineSettings(**settings))]))


def test_a_phase_that_compares_backends_may_have_settings_for_one_of_them() -> None:
    both = EngineSettings(block_size=32, attn_implementation="sdpa", tensor_parallel_size=1)
    check_all_act([("hf", both), ("vllm", both)])
    with pytest.raises(ConfigError, match="block_size"):
        check_all_act([("hf", both)])
