"""What runs ask, added up, against a conversation that is played step by step."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.planner.cases import run
from vendomini.planner.work import RunWork, work_of

RUNS = st.builds(
    RunWork,
    requests=st.integers(1, 3000),
    side_requests=st.integers(0, 300),
    prefix_tokens=st.integers(0, 3000),
    growth_tokens=st.integers(50, 400),
    output_tokens=st.integers(1, 50),
    window_tokens=st.none() | st.integers(4096, 65536),
    kept_share=st.sampled_from([0.5, 0.75, 0.9]),
)


def played(work: RunWork) -> tuple[float, float, int]:
    """Mean length of the prompts, mean tokens that no cache has, and the longest conversation."""
    length, lengths, new, longest = work.prefix_tokens, [], [], work.prefix_tokens
    for _ in range(work.requests):
        read = work.growth_tokens - work.output_tokens
        if work.window_tokens is not None and length + work.growth_tokens > work.window_tokens:
            length = int(work.window_tokens * work.kept_share)
            read += length - work.prefix_tokens  # the rules are still in the cache
        lengths.append(length)
        new.append(read)
        length += work.growth_tokens
        longest = max(longest, length)
    return sum(lengths) / len(lengths), sum(new) / len(new), longest


@given(RUNS)
def test_a_runs_sums_are_those_of_its_conversation_played_step_by_step(work: RunWork) -> None:
    assume(work.window_tokens is None or work.window_tokens * work.kept_share > work.prefix_tokens)
    context, new, longest = played(work)
    top = work.conversation_tokens
    # A conversation that is cut is played in whole requests, so its saw is a request off.
    assert abs(work.mean_context_tokens - context) <= work.growth_tokens + 0.05 * top
    assert top - 2 * work.growth_tokens <= longest <= top
    # Cuts come each whole number of requests, and the first of them early or late in the run.
    each_cut = max(top * work.kept_share - work.prefix_tokens, 0)
    rounding = work.growth_tokens / (top * (1 - work.kept_share))
    assert abs(work.new_tokens - new) <= rounding * new + 2 * each_cut / work.requests


def test_without_a_window_nothing_is_read_twice() -> None:
    work = run(100, window=None)
    assert work.conversation_tokens == 1160 + 100 * 130
    assert work.mean_context_tokens == pytest.approx(1160 + 50 * 130)
    assert work.new_tokens == 70


def test_a_full_window_is_read_anew_each_time_that_it_is_cut() -> None:
    short, long = run(20, window=4096), run(2000, window=4096)
    assert short.new_tokens == 70
    # 1024 tokens leave, about 8 requests' worth, and 3072 less the rules come anew.
    assert long.new_tokens == pytest.approx(70 + (3072 - 1160) * 130 / 1024, rel=0.02)
    assert long.mean_context_tokens == pytest.approx(4096 * (1 + 0.75) / 2, rel=0.02)


@given(RUNS, st.integers(1, 500))
def test_more_requests_never_shorten_a_conversation(work: RunWork, more: int) -> None:
    longer = replace(work, requests=work.requests + more)
    assert longer.conversation_tokens >= work.conversation_tokens
    if work.window_tokens is not None:
        assert work.conversation_tokens <= max(work.window_tokens, work.prefix_tokens)


@given(st.lists(RUNS, min_size=1, max_size=5, unique=True), st.data())
def test_a_groups_work_is_the_sum_of_its_runs_in_any_order(
    kinds: list[RunWork], data: st.DataObject
) -> None:
    counts = {kind: data.draw(st.integers(1, 400)) for kind in kinds}
    total = work_of(counts)
    flat = [kind for kind, count in counts.items() for _ in range(count)]
    asked = sum(kind.all_requests for kind in flat)
    assert (total.runs, total.requests) == (len(flat), asked)
    assert total.longest_run_requests == max(kind.all_requests for kind in flat)
    assert total.conversation_tokens == max(kind.conversation_tokens for kind in flat)
    output = sum(kind.output_tokens * kind.all_requests for kind in flat) / asked
    assert total.output_tokens == pytest.approx(output)
    assert work_of({kind: counts[kind] for kind in data.draw(st.permutations(kinds))}) == total


def test_a_batch_that_adds_nothing_takes_its_prefix_and_one_reply_each() -> None:
    scores = RunWork(
        requests=5120, prefix_tokens=800, growth_tokens=0, output_tokens=1, at_once=256
    )
    assert scores.conversation_tokens == 801
    assert scores.requests_in_a_row == 20
    assert scores.new_tokens == 0
    (total,) = [work_of({scores: 3})]
    assert (total.requests, total.longest_run_requests, total.at_once) == (3 * 5120, 20, 256)


def test_a_mixture_is_its_kinds_added_up_and_not_the_largest_of_them() -> None:
    one = RunWork(requests=100, prefix_tokens=500, growth_tokens=0, output_tokens=8)
    batch = replace(one, requests=6400, at_once=64)
    mixed = work_of({one: 100, batch: 1})
    assert (mixed.rounds, mixed.longest_run_requests) == (100 * 100 + 100, 100)
    assert 1 < mixed.at_once < 2
    assert work_of({one: 100}).at_once == 1
    assert work_of({batch: 3}).at_once == 64


def test_what_is_in_no_other_prompt_is_read_each_time_and_not_kept() -> None:
    shared = RunWork(
        requests=2560, prefix_tokens=400, growth_tokens=0, output_tokens=1, at_once=256
    )
    items = replace(shared, own_tokens=300)
    assert items.new_tokens == shared.new_tokens + 300
    assert items.conversation_tokens == shared.conversation_tokens + 300
    assert items.mean_context_tokens == shared.mean_context_tokens + 300


def test_a_conversation_grows_once_for_all_that_is_asked_at_once() -> None:
    one = run(100, window=None)
    four = replace(one, requests=400, at_once=4)
    assert four.conversation_tokens == one.conversation_tokens
    assert four.mean_context_tokens == one.mean_context_tokens
    assert replace(four, requests=401).conversation_tokens == one.conversation_tokens + 130


@given(RUNS, st.integers(1, 300))
def test_asking_more_at_once_never_lengthens_a_conversation_that_grows(
    work: RunWork, at_once: int
) -> None:
    batched = replace(work, at_once=at_once)
    assert batched.conversation_tokens <= work.conversation_tokens
    assert batched.all_requests == work.all_requests
    assert batched.requests_in_a_row <= work.all_requests
