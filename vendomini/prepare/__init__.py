"""From runs, a profile and what is known of models and engines to a plan."""

from vendomini.prepare.backends import refuse_environments
from vendomini.prepare.facts import EngineFacts, ModelName
from vendomini.prepare.group import GroupPlan, Plan, Writes, plan_as_json
from vendomini.prepare.plan import (
    make_plan,
    refuse_costly,
    refuse_missing,
    refuse_unplayable,
)
from vendomini.prepare.writing import Room, shortages, writes_in_words

__all__ = [
    "EngineFacts",
    "GroupPlan",
    "ModelName",
    "Plan",
    "Room",
    "Writes",
    "make_plan",
    "plan_as_json",
    "refuse_costly",
    "refuse_environments",
    "refuse_missing",
    "refuse_unplayable",
    "shortages",
    "writes_in_words",
]
