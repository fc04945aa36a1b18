"""The prediction card: what an agent expects of one call, as it is logged."""

from typing import Annotated, TypeAlias

import msgspec

# Bounds keep every error finite; nothing in the world comes near them.
Amount: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Reflection(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an agent says of its own prediction; recorded, never scored. None: not said."""

    uncertain_about: str | None = None
    based_on: str | None = None
    alternatives_considered: tuple[str, ...] | None = None
    reasoning: str | None = None


class Card(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an agent expects of one call; None: not predicted.

    Money in currency units, days from the call to the delivery, units; `*_after` at the
    day's end. `next_tool` is the tool it means to call next. `confidence` is how sure it is of
    the card, 0 .. 1.
    """

    expected_success: bool | None = None
    expected_cost: Amount | None = None
    expected_lead_days: Amount | None = None
    expected_quantity: Amount | None = None
    expected_storage_after: Amount | None = None
    expected_budget_after: Amount | None = None
    next_tool: str | None = None
    confidence: Share | None = None
    reflection: Reflection | None = None
