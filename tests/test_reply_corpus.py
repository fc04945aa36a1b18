"""Recorded replies of a real model, read as a run reads them: a change of a verdict is seen.

`python -m bench.reading --write` writes the verdicts anew, for somebody to read the difference.
"""

import json
import subprocess
import sys

import pytest

from bench.reading import FOLDER, Recorded, corpus, shares, verdict_of, without_thoughts
from tests.product import ROOT

CORPUS = corpus()
MOST_BYTES = 320_000

TOLD_APART = {
    "<think>",
    "<think> that the template opened",
    "<seed:think>",
    "[THINK]",
    "harmony",
    "harmony without its marks",
    "harmony, ended by <|return|>",
    "field `reasoning`",
    "field `reasoning_content`",
}
"""Forms of thoughts, none of which changes what is read after them."""


@pytest.mark.parametrize("recorded", CORPUS, ids=lambda each: f"{each.number}, {each.form}")
def test_a_recorded_reply_is_read_as_it_was(recorded: Recorded) -> None:
    assert verdict_of(recorded) == recorded.verdict


@pytest.mark.parametrize("form", sorted(TOLD_APART))
def test_a_reply_is_the_same_with_thoughts_before_it(form: str) -> None:
    verdicts = {each.number: each.verdict for each in CORPUS}
    thinking = [each for each in CORPUS if each.form == form]
    assert len(thinking) >= 12
    for each in thinking:
        assert each.bare is not None
        assert each.verdict["thoughts"]
        assert without_thoughts(each.verdict) == without_thoughts(verdicts[each.bare])


def test_a_thought_that_never_ends_is_no_reply() -> None:
    endless = [each for each in CORPUS if each.form == "<think> that never ends"]
    assert endless
    for each in endless:
        assert "cut off" in each.verdict["failure"]
        assert each.verdict["thoughts"]


def test_a_reply_held_to_the_schema_is_read() -> None:
    held = [each for each in CORPUS if each.form.startswith("schema")]
    ended = [each for each in held if each.answer["choices"][0]["finish_reason"] == "stop"]
    assert len(ended) >= 24
    for each in ended:
        assert "call" in each.verdict
        assert each.verdict["card"] is each.cards


def test_the_corpus_is_small_and_of_many_forms() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < MOST_BYTES
    forms = {each.form for each in CORPUS}
    assert len(forms) >= 14
    assert {each.cards for each in CORPUS} == {True, False}
    assert [each.number for each in CORPUS] == list(range(len(CORPUS)))


def test_the_bench_prints_shares_that_add_up() -> None:
    command = [sys.executable, "-m", "bench.reading", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    assert [row["form"] for row in printed] == [row.form for row in shares(CORPUS)]
    for row in printed:
        assert row["read"] + row["asked_again"] + row["failed"] == pytest.approx(1)
