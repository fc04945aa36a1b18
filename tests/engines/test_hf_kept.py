"""Conversations that are kept: what is read, what is drawn, and what happens when memory ends."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface, DynamicCache

from tests.tiny_models import tiny_model
from vendomini.engines.hf.attention import Part, Reader, Unkept
from vendomini.engines.hf.decisions import kv_bytes_per_token
from vendomini.engines.hf.generation import Generation, is_out_of_memory
from vendomini.engines.hf.kept import LEAST_SHARED, Arena, Conversation, Kept, common
from vendomini.engines.hf.loading import Loaded, Options, load
from vendomini.engines.hf.sampling import Drawing, Row, Sampler

OWN = dict(AttentionInterface._global_mapping)
SIZE = 300  # of the vocabularies

SMALL: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}

ATTENTIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("sdpa", {}),
    "mistral": ("sdpa", {"sliding_window": 8}),
    "gemma2": ("eager", {"sliding_window": 8, "query_pre_attn_scalar": 16}),
    "gemma3_text": ("sdpa", {"sliding_window": 8}),
    "gpt_oss": ("eager", {"sliding_window": 8, "num_local_experts": 4}),
    "phi3": ("sdpa", {}),
    "olmo2": ("sdpa", {}),
    "qwen3_moe": ("sdpa", {"num_experts": 4, "num_experts_per_tok": 2}),
    "gpt_neox": ("sdpa", {"num_key_value_heads": 4}),
    "deepseek_v3": (
        "sdpa",
        {
            "num_key_value_heads": 4,
            "head_dim": 8,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 2,
        },
    ),
}
"""Models of layers of attention, by transformers' names: their own attention, and their sizes."""


def made(kind: str, attention: str, **sizes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **sizes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():  # as initialised, all logits are nearly alike
        for weights in model.parameters():
            weights.normal_(std=0.3) if weights.dim() > 1 else None
    return model.eval().float()


def loaded(folder: Path, **options: Any) -> Loaded:
    asked = Options(
        model=str(folder), served_model_name="m", uds=Path("s"), device="cpu", **options
    )
    return load(asked, lambda line: None)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return loaded(tiny_model(tmp_path_factory.mktemp("m") / "llama", key_value_heads=1))


def a_row(prompt: Sequence[int], **asked: Any) -> Row:
    wanted: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0, "top_p": 1.0, "ends": False}
    return Row(prompt=list(prompt), **(wanted | asked))


def played(generation: Generation, rows: Sequence[Row]) -> list[Drawing]:
    """All rows at once, to their ends."""
    ends: dict[int, Drawing | Exception] = {}
    for place, row in enumerate(rows):
        generation.waiting.append(
            generation.task(row, lambda end, place=place: ends.__setitem__(place, end))  # type: ignore[misc]
        )
    for _ in range(5000):
        if len(ends) == len(rows):
            break
        generation.step()
    found = []
    for place in range(len(rows)):
        end = ends[place]
        assert isinstance(end, Drawing), end
        found.append(end)
    return found


def give_back() -> None:
    """What readers have taken the place of."""
    AttentionInterface._global_mapping.clear()
    AttentionInterface._global_mapping.update(OWN)


@pytest.fixture
def restored() -> Iterator[None]:
    """transformers' own attention while a test lasts, and afterwards that of the module's model."""
    before = dict(AttentionInterface._global_mapping)
    give_back()
    yield
    AttentionInterface._global_mapping.clear()
    AttentionInterface._global_mapping.update(before)


def ids(count: int, *, seed: int) -> list[int]:
    return [(seed * 101 + 17 * at * at + at) % (SIZE - 20) + 10 for at in range(count)]


def turns(generation: Generation, *, rows: int = 4, count: int = 4) -> list[list[int]]:
    """What is said in conversations that begin alike, of different length, turn by turn."""
    conversations = [ids(40, seed=1) + ids(5 + 9 * row, seed=row + 2) for row in range(rows)]
    said = []
    for turn in range(count):
        drawn = played(generation, [a_row(each) for each in conversations])
        for row, each in enumerate(drawn):
            said.append(each.tokens)
            conversations[row] += each.tokens + ids(3 + 5 * row, seed=turn + 50)
    return said


# -- models --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ATTENTIVE)
def test_a_packed_model_says_what_it_says_alone(kind: str, restored: None) -> None:
    attention, sizes = ATTENTIVE[kind]
    model = made(kind, attention, **sizes)
    lengths = 37, 5, 60
    with torch.inference_mode():
        alone = [model(torch.tensor([ids(n, seed=n)])).logits[0, -1] for n in lengths]
        reader = Reader(model, attention)
        read = [reader.arena.begin(ids(n, seed=n), (3, 64)) for n in lengths]
        # In pieces of different length, so that each begins at another place, and a few tokens
        # of all of them, or of some, one at a time.
        for counts in ((30, 1, 17), (1, 1, 1), (1, 1, 30), (2, 0, 1), (1, 0, 1), (2, 2, 10)):
            parts = [Part(each, n) for each, n in zip(read, counts, strict=True) if n]
            ends = [sum(part.count for part in parts[: n + 1]) - 1 for n in range(len(parts))]
            logits = reader.read(parts, ends)
        assert [each.read for each in read] == list(lengths)
    # As many bytes as are counted from the config, but for latent attention, which keeps less.
    counted = kv_bytes_per_token(model.config, 4)
    assert reader.token_bytes < counted if kind == "deepseek_v3" else reader.token_bytes == counted
    for wanted, found in zip(alone, logits, strict=True):
        assert torch.allclose(wanted, found, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "sizes", "why"),
    [
        ("lfm2", {"layer_types": ["conv", "full_attention"] * 2}, "not all attention"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "in pieces it fails"),
    ],
)
def test_a_model_whose_conversations_cannot_be_kept_says_why_and_keeps_its_attention(
    kind: str, sizes: dict[str, Any], why: str, restored: None
) -> None:
    model = made(kind, "eager" if kind == "bloom" else "sdpa", **sizes)
    with pytest.raises(Unkept, match=why):
        Reader(model, model.config._attn_implementation)
    assert AttentionInterface._global_mapping == OWN


def test_a_model_that_would_say_something_else_is_not_kept(restored: None) -> None:
    model = made("llama", "sdpa")
    inner = model.model.layers[1].self_attn
    rightly = inner.forward

    def wrongly(*args: Any, **given: Any) -> Any:
        # As a layer of a kind that nobody knew when this was written.
        if not isinstance(given["past_key_values"], DynamicCache):
            given["hidden_states"] = given["hidden_states"] * 2
        return rightly(*args, **given)

    inner.forward = wrongly
    with pytest.raises(Unkept, match="something else"):
        Reader(model, "sdpa")
    assert AttentionInterface._global_mapping == OWN


def test_flash_attention_is_asked_for_what_sdpa_computes(restored: None) -> None:
    """The package needs a GPU: here transformers' function of that name is written with torch, as
    the package's documentation says (causal from the last key back, a window to the left)."""

    def flash(module: Any, q: Any, k: Any, v: Any, mask: Any, **asked: Any) -> Any:
        assert "position_ids" not in asked
        n, m = q.shape[2], k.shape[2]
        if mask is not None:  # (rows, m), of one token each: those that are there
            assert n == 1
            seen = mask[:, None, None]
        else:
            own, at = torch.arange(m - n, m)[:, None], torch.arange(m)[None]
            seen = at <= own
            if asked.get("sliding_window") is not None:
                seen &= at > own - asked["sliding_window"]
        scale = asked["scaling"]
        found = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=scale, enable_gqa=True
        )
        return found.transpose(1, 2), None

    for kind in ("llama", "mistral", "deepseek_v3"):
        attention, sizes = ATTENTIVE[kind]
        assert attention == "sdpa"
        reader = Reader(made(kind, attention, **sizes), "sdpa")
        with torch.inference_mode():
            said = []
            for reader._attention in ("sdpa", "flash_attention_2"):
                if reader._attention != "sdpa":
                    reader._inner = flash
                read = [reader.arena.begin(ids(n, seed=n), (2, 64)) for n in (33, 7)]
                reader.read([Part(each, len(each.tokens) - 1) for each in read], (0,))
                said.append(reader.read([Part(each, 1) for each in read], (0, 1)))
                for each in read:
                    reader.arena.leave(each)
            wanted, found = said
        assert torch.allclose(wanted, found, atol=2e-3, rtol=1e-3)
        give_back()


# -- replies -------------------------------------------------------------------------------


def test_replies_are_the_same_with_kept_conversations_and_without(llama: Loaded) -> None:
    keeping = Generation(llama, max_rows=8)
    reading_anew = Generation(llama, max_rows=8, keeps=False)
    assert turns(keeping) == turns(reading_anew)
    assert reading_anew.counters.kept_tokens == 0
    kept = keeping.counters
    assert kept.prompt_tokens == reading_anew.counters.prompt_tokens
    assert kept.kept_tokens > 0.6 * kept.prompt_tokens


def test_every_token_is_read_once(llama: Loaded) -> None:
    """What is read is what no conversation before it began with: the last token of a reply, which
    nobody had to read, and what follows it."""
    generation = Generation(llama, max_rows=8)
    prompt = ids(50, seed=1)
    (first,) = played(generation, [a_row(prompt)])
    longer = prompt + first.tokens + ids(9, seed=2)
    (second,) = played(generation, [a_row(longer)])
    assert second.kept == len(prompt) + len(first.tokens) - 1
    # Another one that begins like it, while neither is lost.
    other = prompt + ids(30, seed=3)
    (third,) = played(generation, [a_row(other)])
    assert third.kept == common(other, longer)
    (fourth,) = played(generation, [a_row(longer + second.tokens)])
    assert fourth.kept == len(longer) + len(second.tokens) - 1


def test_conversations_that_begin_alike_wait_for_the_first_of_them(llama: Loaded) -> None:
    generation = Generation(llama, max_rows=8)
    shared = ids(200, seed=1)
    drawn = played(generation, [a_row(shared + ids(5, seed=n)) for n in range(6)])
    assert [each.kept for each in drawn] == [0, *[200] * 5]
    (again, *_) = played(Generation(llama, max_rows=1), [a_row(shared + ids(5, seed=5))])
    assert again.tokens == drawn[5].tokens


def test_a_reply_leaves_when_it_is_done_and_another_takes_its_place(llama: Loaded) -> None:
    generation = Generation(llama, max_rows=2)
    left: list[str] = []
    for name, count in (("long", 60), ("short", 3), ("next", 3)):
        generation.waiting.append(
            generation.task(
                a_row(ids(20, seed=len(name)), max_tokens=count),
                lambda _, name=name: left.append(name),  # type: ignore[misc]
            )
        )
    while len(left) < 3:
        generation.step()
    assert left == ["short", "next", "long"]
    assert generation.counters.passes < 65


def test_what_is_kept_stays_within_the_cache_and_the_oldest_leaves_first(llama: Loaded) -> None:
    generation = Generation(llama, max_rows=4)
    generation._kv_tokens = 512
    assert llama.reader is not None
    llama.reader.arena = Arena()
    for seed in range(8):
        played(generation, [a_row(ids(60, seed=seed))])
        arena = llama.reader.arena
        assert arena.rows * arena.room + generation._kept.tokens <= 512
    begins = [each.tokens[:60] for each in generation._kept]
    assert begins == [ids(60, seed=seed) for seed in range(8)][-len(begins) :]
    assert len(begins) > 2


def test_a_wave_that_ends_at_once_stays_within_the_cache(llama: Loaded) -> None:
    generation = Generation(llama, max_rows=8)
    generation._kv_tokens = 8 * 64
    assert llama.reader is not None
    llama.reader.arena = Arena()
    played(generation, [a_row(ids(40, seed=n)) for n in range(6)])
    arena = llama.reader.arena
    assert arena.rows * arena.room + generation._kept.tokens <= 8 * 64
    assert generation._kept.tokens > 0


def test_a_longer_row_after_short_ones_gets_an_arena_within_the_cache() -> None:
    arena = Arena()
    arena.rows, arena.room = 9, 1024
    rows, room = arena.size_with(8192, most=20_000)
    assert rows * room <= 20_000


def test_a_row_that_does_not_fit_beside_the_others_waits_for_them(llama: Loaded) -> None:
    generation = Generation(llama, max_rows=8)
    generation._kv_tokens = 2 * 64
    most = 0
    rows = [a_row(ids(30, seed=n), max_tokens=15) for n in range(5)]
    told: list[Any] = []
    for row in rows:
        generation.waiting.append(generation.task(row, told.append))
    while len(told) < 5:
        generation.step()
        most = max(most, len(generation.running))
    assert most == 2


def test_scores_are_those_of_one_pass_however_they_are_cut(
    llama: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vendomini.engines.hf import generation

    rows = [
        a_row(ids(n, seed=n), max_tokens=2, prompt_logprobs=2, top_logprobs=1) for n in (40, 17, 1)
    ]
    whole = played(Generation(llama, max_rows=8), rows)
    piece = 8 * generation.BYTES_PER_SCORE * llama.vocabulary
    monkeypatch.setattr(generation, "SCORING_BYTES", piece)
    pieces = played(Generation(llama, max_rows=8), rows)
    for one, other, row in zip(whole, pieces, rows, strict=True):
        assert one.tokens == other.tokens
        with torch.inference_mode():
            wanted = llama.model(torch.tensor([row.prompt])).logits[0].log_softmax(-1)
        for place, score in enumerate(other.prompt_scores):
            token = row.prompt[place + 1]
            assert score.token == token
            assert score.logprob == pytest.approx(float(wanted[place, token]), abs=1e-4)
    assert [len(each.prompt_scores) for each in pieces] == [39, 16, 0]
    assert [[s.rank for s in each.prompt_scores] for each in whole] == [
        [s.rank for s in each.prompt_scores] for each in pieces
    ]


def test_models_of_other_layers_are_batched_and_say_what_each_row_says_alone(
    llama: Loaded, restored: None
) -> None:
    sizes = {"layer_types": ["conv", "full_attention"] * 2, "vocab_size": llama.vocabulary}
    model = made("lfm2", "sdpa", **sizes)
    other = replace(llama, model=model, reader=None)
    rows = [
        a_row(ids(n, seed=n), max_tokens=most, temperature=heat, seed=n, prompt_logprobs=asked)
        for n, most, heat, asked in ((30, 4, 0.0, None), (12, 20, 1.0, None), (21, 3, 0.0, 1))
    ]
    batched = Generation(other, max_rows=8)
    together = played(batched, rows)
    alone = [played(Generation(other, max_rows=8), [row])[0] for row in rows]
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    assert [len(each.tokens) for each in together] == [4, 20, 3]
    assert batched.counters.passes == 1
    assert [len(each.prompt_scores) for each in together] == [0, 0, 20]


def test_a_batch_that_does_not_fit_memory_is_halved_until_it_does(
    llama: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = Generation(replace(llama, reader=None), max_rows=8)
    tried: list[int] = []

    def generate() -> None:
        tried.append(len(generation.running))
        if len(generation.running) > 2:
            raise torch.OutOfMemoryError("too much")
        for task in list(generation.running):
            generation._finish(task)

    monkeypatch.setattr(generation, "_generate", generate)
    played(generation, [a_row(ids(5, seed=n)) for n in range(6)])
    assert [n for n in tried if n] == [6, 3, 1, 1, 1, 1, 1, 1]
    assert generation.counters.preemptions == 6 + 3


# -- memory --------------------------------------------------------------------------------


class Short:
    """A reader on a device whose memory holds `most` rows in one pass."""

    def __init__(self, reader: Reader, most: int) -> None:
        self.reader, self.most, self.failed = reader, most, 0

    @property
    def arena(self) -> Arena:
        return self.reader.arena

    @arena.setter
    def arena(self, made: Arena) -> None:
        self.reader.arena = made

    def read(self, parts: Sequence[Part], places: Sequence[int]) -> Any:
        if len(parts) > self.most:
            self.failed += 1
            raise torch.OutOfMemoryError("too much")
        return self.reader.read(parts, places)


def test_rows_that_do_not_fit_memory_begin_again_later_and_say_the_same(llama: Loaded) -> None:
    rows = [a_row(ids(20 + n, seed=n), temperature=1.0, seed=n) for n in range(6)]
    wanted = [each.tokens for each in played(Generation(llama, max_rows=8), rows)]
    generation = Generation(llama, max_rows=8)
    assert llama.reader is not None
    short = Short(llama.reader, most=2)
    generation._reader = short  # type: ignore[assignment]
    assert [each.tokens for each in played(generation, rows)] == wanted
    assert generation.counters.preemptions > 0
    assert short.failed <= 8  # it learns how many fit


def test_a_row_that_never_fits_fails_alone_and_the_next_is_answered(llama: Loaded) -> None:
    class Never:
        arena = Arena()

        def read(self, parts: Sequence[Part], places: Sequence[int]) -> Any:
            raise torch.OutOfMemoryError("too much")

    generation = Generation(llama, max_rows=8)
    generation._reader = Never()  # type: ignore[assignment]
    told: list[Drawing | Exception] = []
    generation.waiting.append(generation.task(a_row(ids(20, seed=1)), told.append))
    generation.step()
    assert isinstance(told[0], torch.OutOfMemoryError)
    generation._reader = llama.reader
    assert len(played(generation, [a_row(ids(20, seed=1))])[0].tokens) == 12


def test_an_error_of_the_model_is_that_of_the_rows_under_way(llama: Loaded) -> None:
    class Broken:
        arena = Arena()

        def read(self, parts: Sequence[Part], places: Sequence[int]) -> Any:
            raise ValueError("unlucky")

    generation = Generation(llama, max_rows=1)
    generation._reader = Broken()  # type: ignore[assignment]
    told: list[Drawing | Exception] = []
    for seed in range(2):
        generation.waiting.append(generation.task(a_row(ids(20, seed=seed)), told.append))
    generation.step()
    assert [str(each) for each in told] == ["unlucky"]
    generation._reader = llama.reader
    while len(told) < 2:
        generation.step()
    assert isinstance(told[1], Drawing)


@pytest.mark.parametrize("where", ["draw", "at_rest", "of"])
def test_memory_that_ends_anywhere_costs_no_row_and_changes_none(
    llama: Loaded, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """In the sampler, while a conversation is put to rest, while the arena is made anew."""
    rows = [
        a_row(ids(20 + 9 * n, seed=n), max_tokens=5 + 4 * n, temperature=1.0, seed=n)
        for n in range(5)
    ]
    rows.append(a_row(ids(40, seed=9), max_tokens=2, prompt_logprobs=1))
    wanted = [
        (each.tokens, len(each.prompt_scores))
        for each in played(Generation(llama, max_rows=8), rows)
    ]
    kind = {"draw": Sampler, "at_rest": Conversation, "of": Arena}[where]
    whole = getattr(kind, where)
    for fails_at in (1, 2, 5, 9):
        calls = 0

        def failing(*args: Any, fails_at: int = fails_at) -> Any:
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise torch.OutOfMemoryError("too much")
            return whole(*args)

        assert llama.reader is not None
        llama.reader.arena = Arena()
        with monkeypatch.context() as patched:
            patched.setattr(kind, where, failing)
            generation = Generation(llama, max_rows=8)
            found = played(generation, rows)
        assert calls >= fails_at or where == "at_rest"
        assert [(each.tokens, len(each.prompt_scores)) for each in found] == wanted
        assert not llama.reader.arena._under_way


def test_what_ends_while_nothing_runs_fails_the_one_that_came(
    llama: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("too much")

    generation = Generation(llama, max_rows=8)
    told: list[Drawing | Exception] = []
    with monkeypatch.context() as patched:
        patched.setattr(Arena, "begin", never)
        generation.waiting.append(generation.task(a_row(ids(20, seed=1)), told.append))
        generation.step()
    assert isinstance(told[0], torch.OutOfMemoryError)
    assert len(played(generation, [a_row(ids(20, seed=1))])[0].tokens) == 12


def test_rotations_that_depend_on_the_longest_are_not_kept() -> None:
    short = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}
    short |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    short["original_max_position_embeddings"] = 256
    with pytest.raises(Unkept, match="rotation"):
        Reader(made("phi3", "sdpa", rope_parameters=short), "sdpa")


# -- what is kept, without a model -----------------------------------------------------------


def read_by(conversation: Conversation, arena: Arena) -> None:
    """As if a model had read all of it, whose keys are the tokens, and values their negatives."""
    tokens = conversation.tokens
    plane = torch.tensor(tokens, dtype=torch.float32).reshape(1, 1, -1, 1)
    for kept, read in zip(arena.of(0, plane, plane), (plane, -plane), strict=True):
        kept[conversation.row, :, : len(tokens)] = read[0]
    conversation.read = len(tokens)


def holds(conversation: Conversation) -> bool:
    keys, values = conversation.upto(0, conversation.read)
    tokens = conversation.tokens[: conversation.read]
    return (
        bool(torch.equal(keys.flatten(), -values.flatten())) and keys.flatten().tolist() == tokens
    )


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),  # which conversations it begins like
            st.integers(1, 60),
            st.integers(0, 200),
            st.integers(0, 9),
            st.integers(0, 3),  # which of those under way leaves then
        ),
        min_size=1,
        max_size=14,
    )
)
@settings(deadline=None, max_examples=60)
def test_a_conversation_goes_on_from_what_any_other_has_read(
    asked: list[tuple[int, int, int, int, int]],
) -> None:
    kept, arena = Kept(), Arena()
    under_way: list[Conversation] = []
    for family, shared, own, seed, leaves in asked:
        tokens = ids(shared, seed=family) + ids(own, seed=100 + seed) + [5]
        alike = (common(tokens[:-1], each.tokens) for each in (*kept, *under_way))
        most = max(alike, default=0)
        best, count = kept.longest(tokens, under_way)
        begun = arena.begin(tokens, arena.size_with(len(tokens) + 7, most=2000), best, count)
        assert begun.read == count == (most if most >= LEAST_SHARED else 0)
        assert not begun.read or holds(begun)
        read_by(begun, arena)
        under_way.append(begun)
        assert all(map(holds, under_way))
        if leaves < len(under_way):
            left = under_way.pop(leaves)
            kept.keep(left)
            arena.leave(left)
            kept.shrink_to(200)
        assert all(map(holds, (*kept, *under_way)))
        assert kept.tokens == sum(len(each.tokens) for each in kept) <= 200
        assert arena.rows >= len(under_way)


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_common_counts_what_two_sequences_begin_with(one: list[int], other: list[int]) -> None:
    wanted = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        wanted += 1
    assert common(one, other) == common(other, one) == wanted


@pytest.mark.parametrize(
    ("words", "is_memory"),
    [
        ("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_memory_that_ends_beside_torchs_allocator_is_known_by_its_words(
    words: str, is_memory: bool
) -> None:
    assert is_out_of_memory(RuntimeError(words)) is is_memory
