"""Models that load or do not, templates, thoughts before a schema, and long prompts in pieces."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from aiohttp.test_utils import TestClient, TestServer

from tests.tiny_models import tiny_model
from vendomini.engines.hf.__main__ import root_cause
from vendomini.engines.hf.batching import Batcher
from vendomini.engines.hf.generation import Generation
from vendomini.engines.hf.loading import Loaded, Options, load
from vendomini.engines.hf.sampling import Drawing, Row, Sampler
from vendomini.engines.hf.server import Server
from vendomini.errors import EngineError


def loaded(folder: Path, **options: Any) -> Loaded:
    asked = Options(
        model=str(folder), served_model_name="m", uds=Path("s"), device="cpu", **options
    )
    return load(asked, lambda line: None)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return loaded(tiny_model(tmp_path_factory.mktemp("m") / "llama"))


@pytest.fixture
def folder(llama: Loaded, tmp_path: Path) -> Path:
    """A copy of the model, to be damaged."""
    return Path(shutil.copytree(llama.model.config.name_or_path, tmp_path / "copy"))


def chat(model: Loaded, **body: Any) -> tuple[int, Any]:
    """Status and body of one chat with a server in this process."""

    async def main() -> tuple[int, Any]:
        batcher = Batcher(Generation(model, max_rows=8))
        batcher.start()
        server = Server(model, batcher, name="m", key="k")
        headers = {"Authorization": "Bearer k"}
        async with TestClient(TestServer(server.application()), headers=headers) as client:
            reply = await client.post("/v1/chat/completions", json={"model": "m", **body})
            found = reply.status, await reply.json()
        return found

    return asyncio.run(main())


HELLO = [{"role": "user", "content": "hello"}]


def test_a_model_without_sdpa_is_loaded_with_eager_attention_and_keeps_its_conversations(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    asked = Options(
        model=str(tiny_model(tmp_path / "m", "gemma2")),
        served_model_name="m",
        uds=Path("s"),
        device="cpu",
    )
    model = load(asked, said.append)
    assert "[*] Flash Attention needs a GPU, using eager attention (slower)" in said
    assert model.attention == "eager"
    assert model.reader is not None
    status, body = chat(model, messages=HELLO, max_tokens=4)
    assert (status, body["usage"]["completion_tokens"]) == (200, 4)


def test_a_template_that_objects_is_a_400_with_its_words(llama: Loaded, tmp_path: Path) -> None:
    model = loaded(tiny_model(tmp_path / "nosys", template="no system"))
    status, body = chat(model, messages=[{"role": "system", "content": "be"}, *HELLO], max_tokens=1)
    assert status == 400
    assert "System role not supported" in body["error"]["message"]
    assert chat(model, messages=HELLO, max_tokens=1)[0] == 200


def test_a_model_without_a_template_says_so(tmp_path: Path) -> None:
    model = loaded(tiny_model(tmp_path / "bare", template="none"))
    status, body = chat(model, messages=HELLO, max_tokens=1)
    assert status == 400
    assert "no chat template" in body["error"]["message"]


def test_a_reply_cut_inside_thoughts_that_the_prompt_opened_has_no_content(tmp_path: Path) -> None:
    model = loaded(tiny_model(tmp_path / "thinker", template="plain"))
    model.tokenizer.chat_template += "{{ '<think>\\n' }}"
    status, body = chat(model, messages=HELLO, max_tokens=5, seed=1, ignore_eos=True)
    assert status == 200
    message = body["choices"][0]["message"]
    assert message["content"] == ""
    assert message["reasoning"]


def test_a_schema_holds_only_after_the_thoughts(llama: Loaded) -> None:
    assert llama.think_end is not None
    free = next(i for i in range(20, llama.vocabulary) if llama.decode([i]).isalpha())
    schema = msgspec.json.encode({"enum": ["yes"]}).decode()
    grammar = llama.grammars.compile(schema)
    rows = [
        Row(
            prompt=[1],
            max_tokens=40,
            temperature=0.0,
            top_p=1.0,
            grammar=grammar,
            think_end=think_end,
        )
        for think_end in (llama.think_end, None)
    ]
    drawings = [Drawing(row, llama.grammars.matcher(grammar)) for row in rows]
    sampler = Sampler(end_ids=llama.end_ids, text_of=llama.text_of)
    for wanted in (free, llama.think_end, *[free] * 38):
        going = [each for each in drawings if not each.is_done]
        scores = torch.zeros(len(going), llama.vocabulary)
        scores[:, wanted] = 9.0
        if going:
            sampler.draw(going, scores)
    thinking, at_once = (each.tokens for each in drawings)
    assert thinking[:2] == [free, llama.think_end]
    assert llama.text_of(thinking[2:]) == llama.text_of(at_once) == '"yes"'
    assert thinking[-1] == at_once[-1] == llama.end_ids[0]


def test_draws_follow_their_distribution_and_top_p_keeps_the_likeliest(llama: Loaded) -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    scores = torch.full((1, llama.vocabulary), -torch.inf)
    scores[0, 10:14] = probabilities.log()
    rows = [
        Row(prompt=[1], max_tokens=1, temperature=1.0, top_p=top_p, seed=seed)
        for top_p in (1.0, 0.75)
        for seed in range(2000)
    ]
    drawings = [Drawing(row) for row in rows]
    sampler = Sampler(end_ids=llama.end_ids, text_of=llama.text_of)
    sampler.draw(drawings, scores.repeat(len(rows), 1))
    drawn = torch.tensor([each.tokens[0] for each in drawings])
    shares = torch.bincount(drawn[:2000] - 10, minlength=4) / 2000
    assert torch.allclose(shares, probabilities, atol=0.04)
    narrow = torch.bincount(drawn[2000:] - 10, minlength=4) / 2000
    assert torch.allclose(narrow, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.04)


def test_a_window_larger_than_the_kv_cache_is_refused_before_serving(folder: Path) -> None:
    with pytest.raises(EngineError, match="less than one sequence of max_model_len 1000"):
        loaded(folder, max_model_len=1000, kv_cache_memory_bytes=1 << 19)
    assert loaded(folder, kv_cache_memory_bytes=1 << 19).max_model_len == 512


def test_memory_that_holds_files_is_available_for_the_cache(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemFree: 1024 kB\nMemAvailable: 8388608 kB\n")
    asked = Options(model=str(folder), served_model_name="m", uds=Path("s"), device="cpu")
    said: list[str] = []
    model = load(asked, said.append, machine=tmp_path)
    assert model.max_model_len == 2048
    assert model.kv_tokens == (2 << 30) // 1024
    assert said[-1] == (
        "[*] KV cache: 2097152 tokens, 2.00 GiB of the 8.00 GiB of memory that are available "
        "(MemAvailable); left for the system: 6.00 GiB"
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("no folder", "there is no such folder"),
        ("no config", "no config.json"),
        ("no weights", "has no weights"),
        ("half the weights", "its header says"),
        ("a GGUF alone", "-m vendomini.models.from_gguf"),
        ("a shard lost", "model-2.safetensors"),
        ("a tensor lost", "lacks 1 weights, such as `lm_head.weight`"),
        ("no tokenizer", "tokenizer"),
        ("an unknown architecture", "martian"),
        ("a broken config", "config.json"),
    ],
)
def test_a_damaged_model_is_one_line_that_names_the_cause(
    folder: Path, damage: str, words: str
) -> None:
    weights = folder / "model.safetensors"
    match damage:
        case "no folder":
            shutil.rmtree(folder)
        case "no config":
            (folder / "config.json").unlink()
        case "no weights":
            weights.unlink()
        case "half the weights":
            os.truncate(weights, weights.stat().st_size // 2)
        case "a GGUF alone":
            weights.rename(folder / "model.gguf")
        case "a shard lost":
            index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
            (folder / "model.safetensors.index.json").write_bytes(msgspec.json.encode(index))
        case "a tensor lost":
            from safetensors.torch import load_file, save_file

            tensors = load_file(weights)
            del tensors["lm_head.weight"]
            save_file(tensors, weights, metadata={"format": "pt"})
        case "no tokenizer":
            for file in folder.glob("*token*"):
                file.unlink()
        case "an unknown architecture":
            (folder / "config.json").write_text('{"model_type": "martian"}')
        case "a broken config":
            (folder / "config.json").write_text("{")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - some are transformers' own
        loaded(folder)
    line = root_cause(caught.value)
    assert words in line
    assert "\n" not in line
