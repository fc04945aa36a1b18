"""From runs, a profile and what is known of models and engines to a plan."""

from vendomini.prepare.backends import refuse_environments
from vendomini.prepare.facts import EngineFacts, ModelName
from vendomini.prepare.group import GroupPlan, Plan, pin_key, plan_as_json
from vendomini.prepare.plan import (
    make_plan,
    refuse_costly,
    refuse_missing,
    refuse_unplayable,
)

__all__ = [
    "EngineFacts",
    "GroupPlan",
    "ModelName",
    "Plan",
    "make_plan",
    "pin_key",
    "plan_as_json",
    "refuse_costly",
    "refuse_environments",
    "refuse_missing",
    "refuse_unplayable",
]
