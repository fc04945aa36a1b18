"""A step as its log has it, of which only what a sign looks at is read."""

import msgspec

from vendomini.workloads.warehouse.belief import Belief


class LoggedAction(msgspec.Struct, frozen=True, gc=False):
    """As `records.Action`; the arguments stay JSON."""

    tool: str
    args: msgspec.Raw


class LoggedCard(msgspec.Struct, frozen=True, gc=False):
    """Of a `card.Card`."""

    next_tool: str | None = None


class LoggedStep(msgspec.Struct, frozen=True, gc=False):
    """Of a `records.Step`, in any version's words; the result stays JSON."""

    step: int
    action: LoggedAction | None
    result: msgspec.Raw
    card: LoggedCard | None = None
    belief: Belief | None = None
