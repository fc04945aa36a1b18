"""From runs, a profile and what is known of models and engines to a plan."""

from vendomini.prepare.engine import PACKAGES, EngineFacts, ModelName
from vendomini.prepare.group import GroupPlan, Plan, pin_key, plan_as_json
from vendomini.prepare.plan import (
    make_plan,
    refuse_costly,
    refuse_missing,
    refuse_unplayable,
)
from vendomini.prepare.selftest import (
    SelfTest,
    idle_notes,
    refuse_idle,
    self_test,
    tried_axes,
    what_is_tried,
)

__all__ = [
    "PACKAGES",
    "EngineFacts",
    "GroupPlan",
    "ModelName",
    "Plan",
    "SelfTest",
    "idle_notes",
    "make_plan",
    "pin_key",
    "plan_as_json",
    "refuse_costly",
    "refuse_idle",
    "refuse_missing",
    "refuse_unplayable",
    "self_test",
    "tried_axes",
    "what_is_tried",
]
