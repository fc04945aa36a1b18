"""What a prediction card asks for, by mode and format and by the tool it comes with.

The format says which fields a card has, the mode what must be filled. The prompt, the reply's
schema and the reading of replies are all made from these fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vendomini.workloads.warehouse.settings import InterfaceSettings, PredictionMode

FieldKind: TypeAlias = Literal["boolean", "number", "tool", "share", "text", "reasoning", "texts"]

MOST_WORDS = 100  # of the reasoning
MOST_ALTERNATIVES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CardField:
    """One field of a card; one that need not be filled may be left out, null or empty.

    `share` is a number from 0 to 1, `texts` a list of 1 to `MOST_ALTERNATIVES` texts, `reasoning`
    a text of at most `MOST_WORDS` words.
    """

    name: str
    kind: FieldKind
    meaning: str
    tools: tuple[str, ...] | None = None  # None: with every call
    must_be_filled: bool = True  # with calls of `tools`

    def belongs_to(self, tool: str) -> bool:
        return self.tools is None or tool in self.tools

    def is_demanded_of(self, tool: str) -> bool:
        return self.must_be_filled and self.belongs_to(tool)


_MINIMAL = (
    CardField(name="expected_success", kind="boolean", meaning="whether the call will succeed"),
    CardField(
        name="expected_cost",
        kind="number",
        meaning="all the money it will cost in the end",
        tools=("tool_order", "tool_cancel_order", "tool_expedite"),
    ),
)

_STRUCTURED = (
    *_MINIMAL,
    CardField(
        name="expected_lead_days",
        kind="number",
        meaning="days from today to the delivery",
        tools=("tool_order", "tool_expedite"),
    ),
    CardField(
        name="expected_quantity",
        kind="number",
        meaning="units that will arrive",
        tools=("tool_order",),
    ),
    CardField(
        name="expected_storage_after",
        kind="number",
        meaning="units in storage in all at the end of today",
    ),
    CardField(
        name="expected_budget_after",
        kind="number",
        meaning="the budget at the end of today",
    ),
    CardField(name="next_tool", kind="tool", meaning="the tool you will call tomorrow"),
)

# (name, kind, meaning), in the order they are asked for
_REFLECTIVE: tuple[tuple[str, FieldKind, str], ...] = (
    ("confidence", "share", "how sure you are that this prediction is right"),
    ("uncertain_about", "text", "what you are least sure of"),
    ("based_on", "text", "what you base this prediction on"),
    ("alternatives_considered", "texts", "what else you thought of doing today"),
    ("reasoning", "reasoning", "why you make this call and expect this of it"),
)
REFLECTIVE = tuple(name for name, _, _ in _REFLECTIVE)

FILLED: Mapping[PredictionMode, tuple[str, ...]] = {
    "required": (),
    "optional": (),
    "required+confidence": ("confidence",),
    "required+uncertainty": ("uncertain_about",),
    "required+full": REFLECTIVE,
    "none": (),
}
"""The reflective fields that a mode has filled, whatever the format."""


def card_is_demanded(mode: PredictionMode) -> bool:
    """Whether a reply without its card is a format failure."""
    return mode not in ("optional", "none")


def card_fields(interface: InterfaceSettings) -> tuple[CardField, ...]:
    """The fields of a card, in the order they are asked for; none where no card is asked for."""
    mode, format = interface.prediction_mode, interface.prediction_format
    if mode == "none":
        return ()
    filled = FILLED[mode]
    return (
        *(_MINIMAL if format == "minimal" else _STRUCTURED),
        *(
            CardField(name=name, kind=kind, meaning=meaning, must_be_filled=name in filled)
            for name, kind, meaning in _REFLECTIVE
            if format == "rich" or name in filled
        ),
    )
