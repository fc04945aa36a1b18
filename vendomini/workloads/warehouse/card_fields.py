"""What a prediction card asks for, by format and by the tool it comes with.

The prompt, the reply's schema and the reading of replies are all made from these fields.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vendomini.workloads.warehouse.settings import PredictionFormat, PredictionMode

FieldKind: TypeAlias = Literal["boolean", "number", "tool"]

PLAYED_MODES: tuple[PredictionMode, ...] = ("required", "optional", "none")
PLAYED_FORMATS: tuple[PredictionFormat, ...] = ("minimal", "structured")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardField:
    """One field of a card. It must be filled with calls of `tools`; else it may be left out."""

    name: str
    kind: FieldKind
    meaning: str
    tools: tuple[str, ...] | None = None  # None: with every call

    def belongs_to(self, tool: str) -> bool:
        return self.tools is None or tool in self.tools


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


def card_fields(format: PredictionFormat) -> tuple[CardField, ...]:
    """The fields of a format that this version plays, in the order they are asked for."""
    return _MINIMAL if format == "minimal" else _STRUCTURED
