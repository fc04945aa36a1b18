"""Thoughts and answers told apart, in the published forms of each kind of model."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from vendomini.thoughts import HARMONY, MARKS, Marks, opened_by, opening, split

ANSWER = '{"tool": "tool_wait", "args": {}}'
DRAFT = 'maybe {"tool": "tool_x", "args": {}}'
FINAL = "<|start|>assistant<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("an answer", (None, "an answer")),
        ("", (None, "")),
        ("\n<think>\nhm\n</think>\n\nan answer", ("hm", "an answer")),
        ("hm</think>an answer", ("hm", "an answer")),
        ("<think>never ends", ("never ends", "")),
        ("a</think>b</think>c", ("a", "b</think>c")),
        ("I said <think> aloud", (None, "I said <think> aloud")),
        ("Close it by </reasoning>.", (None, "Close it by </reasoning>.")),
        ("<think></think><think>two</think>an answer", ("two", "an answer")),
        (f"<think>{DRAFT}</think>\n{ANSWER}", (DRAFT, ANSWER)),
        (f"[THINK]{DRAFT}[/THINK]{ANSWER}", (DRAFT, ANSWER)),
        (f"{DRAFT}[/THINK]{ANSWER}", (DRAFT, ANSWER)),
        (f"<seed:think>{DRAFT}</seed:think>{ANSWER}", (DRAFT, ANSWER)),
        (f"<mm:think>{DRAFT}</mm:think>{ANSWER}", (DRAFT, ANSWER)),
        ("<think>they write <|channel|>final</think>so", ("they write <|channel|>final", "so")),
        (f"<|channel>thought\n{DRAFT}\n<channel|>{ANSWER}", (DRAFT, ANSWER)),
        (f"<|channel>thought\n<channel|>{ANSWER}", ("", ANSWER)),
        (f"{DRAFT}<channel|>{ANSWER}", (DRAFT, ANSWER)),
        (f"{DRAFT}</thought>{ANSWER}", (DRAFT, ANSWER)),
        (f"<think:fast>{DRAFT}</think:fast>\n{ANSWER}", (DRAFT, ANSWER)),
        (f"<think:fast>{DRAFT}</think:slow>{ANSWER}", (f"{DRAFT}</think:slow>{ANSWER}", "")),
        # harmony
        (f"{ANALYSIS}{DRAFT}<|end|>{FINAL}{ANSWER}", (DRAFT, ANSWER)),
        (f"{ANALYSIS}{DRAFT}<|end|>{FINAL}{ANSWER}<|return|>", (DRAFT, ANSWER)),
        (f"<|start|>assistant{ANALYSIS}{DRAFT}<|end|>{FINAL}{ANSWER}", (DRAFT, ANSWER)),
        (f"{ANALYSIS}{DRAFT}<|end|>assistant<|channel|>final<|message|>{ANSWER}", (DRAFT, ANSWER)),
        (f"{DRAFT}<|end|>{FINAL}{ANSWER}", (DRAFT, ANSWER)),  # the prompt opened `analysis`
        (f"<|channel|>final <|constrain|>JSON<|message|>{ANSWER}", (None, ANSWER)),
        (f"<|message|>{ANSWER}<|end|>", (None, ANSWER)),
        (f"{ANALYSIS}never ends", ("never ends", "")),
        (f"{ANALYSIS}one<|end|><|start|>assistant{ANALYSIS}two<|end|>", ("one\n\ntwo", "")),
        (
            f"{ANALYSIS}a<|end|><|start|>assistant<|channel|>commentary<|message|>I plan."
            f"<|end|>{FINAL}{ANSWER}",
            ("a\n\nI plan.", ANSWER),
        ),
        (
            f"{ANALYSIS}a<|end|><|start|>assistant<|channel|>commentary to=functions.look "
            '<|constrain|>json<|message|>{"at": 1}<|call|>',
            ("a", '{"name": "look", "arguments": {"at": 1}}'),
        ),
        (
            f"{ANALYSIS}a<|end|><|start|>assistant<|channel|>commentary<|message|>{ANSWER}<|end|>",
            ("a", ANSWER),
        ),
        # harmony whose marks were left out
        (
            f"analysis{DRAFT.capitalize()}.assistantfinal{ANSWER}",
            (f"{DRAFT.capitalize()}.", ANSWER),
        ),
        (f"analysishm.assistantfinal{ANSWER}", ("hm.", ANSWER)),
        (f"We need a call.assistantfinal{ANSWER}", ("We need a call.", ANSWER)),
        (f"assistantfinal{ANSWER}", (None, ANSWER)),
        (f"final{ANSWER}", (None, ANSWER)),
        ("analysisThe user wants", ("The user wants", "")),
        (f"analysisHm.assistant\nfinal{ANSWER}", ("Hm.", ANSWER)),
        ("analysisHm.assistant\n\nfinalSo.", ("Hm.", "So.")),
        (f"We need a call.assistant\nfinal{ANSWER}", ("We need a call.", ANSWER)),
        ("I am an assistant\nfinally.", (None, "I am an assistant\nfinally.")),
        *[(f"analysis{mark} of it", (None, f"analysis{mark} of it")) for mark in "([{#"],
        ("analysis of the market", (None, "analysis of the market")),
        ("The final analysis", (None, "The final analysis")),
        (
            'analysisCall it.assistantcommentary to=functions.look json{"at": 1}',
            ("Call it.", '{"name": "look", "arguments": {"at": 1}}'),
        ),
    ],
)
def test_each_published_form_is_told_apart(text: str, apart: tuple[str | None, str]) -> None:
    assert split(text) == apart


EVERY_MARK = [each for marks in MARKS for each in (marks.start, marks.end)] + [
    "<|channel|>final<|message|>",
    ANALYSIS,
    "<|end|>",
    "<|return|>",
    "assistantfinal",
    "analysisThe",
]
words = st.lists(st.sampled_from([*EVERY_MARK, '"', "\\", "{", "}", " a ", "\n"]), max_size=6).map(
    "".join
)
answers = st.fixed_dictionaries(
    {"tool": words, "args": st.dictionaries(words, words, max_size=3)}
).map(json.dumps)
forms = st.sampled_from([*MARKS, HARMONY])


def form(marks: Marks, thought: str, answer: str, *, opened: bool = False) -> str:
    """A reply in a kind of model's words."""
    end = f"<|end|>{FINAL}" if marks is HARMONY else marks.end
    return ("" if opened else marks.start) + thought + end + answer


@budget(max_examples=150, deadline=None)
@given(answers)
def test_an_answer_of_json_comes_back_whole_whatever_its_texts_hold(answer: str) -> None:
    assert split(answer) == (None, answer)


@budget(max_examples=150, deadline=None)
@given(forms, answers, st.booleans())
def test_so_it_does_behind_a_thought(marks: Marks, answer: str, opened: bool) -> None:
    text = form(marks, "hm", answer, opened=opened)
    assert split(text, opened=marks if opened else None) == ("hm", answer)


@budget(max_examples=150, deadline=None)
@given(answers, st.data())
def test_an_answer_that_is_cut_off_is_not_cut_again(answer: str, data: st.DataObject) -> None:
    cut = answer[: data.draw(st.integers(1, len(answer)))]
    assert split(cut) == (None, cut)
    assert split(form(HARMONY, "hm", cut)) == ("hm", cut)
    assert split(form(MARKS[0], "hm", cut)) == ("hm", cut)


@budget(max_examples=150, deadline=None)
@given(forms, st.text(), st.sampled_from([ANSWER, "an answer", ""]))
def test_a_thought_of_any_text_ends_at_its_mark(marks: Marks, thought: str, answer: str) -> None:
    assume(marks.end not in thought and (marks is not HARMONY or "<|" not in thought))
    assert split(form(marks, thought, answer)) in (
        (thought.strip(), answer),
        (None, answer),  # harmony's channel on which nothing was said
    )


@budget(max_examples=150, deadline=None)
@given(st.one_of(st.text(), words), forms | st.none())
def test_no_text_raises(text: str, opened: Marks | None) -> None:
    thought, answer = split(text, opened=opened)
    assert thought is None or len(thought) <= 2 * len(text)
    assert len(answer) <= 40 + 2 * len(text)


@pytest.mark.parametrize("marks", [*MARKS, HARMONY])
def test_a_prompt_that_opens_a_thought_is_seen(marks: Marks) -> None:
    assert opened_by(f"<|im_start|>assistant\n{marks.start}\n") == marks
    assert split("hm", opened=marks) == ("hm", "")
    assert opened_by(f"{marks.start}</s>assistant\n") is None


def test_the_marks_of_a_text_are_those_that_it_begins_with() -> None:
    assert opening("\n [THINK]a") == Marks("[THINK]", "[/THINK]")
    assert opening("a [THINK]") is None
    assert opening("<thinking>", known=()) is None
