"""What an interface offers: in the prompt, in the reply's schema, and when it is called."""

import json
from collections.abc import Mapping
from typing import Any

from tests.warehouse.playing import settings
from vendomini.workloads.warehouse.agent import briefing
from vendomini.workloads.warehouse.episode import Game
from vendomini.workloads.warehouse.prompt import system_text
from vendomini.workloads.warehouse.reply_schema import reply_schema

MEMORY: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "basic": frozenset({"tool_write_scratchpad", "tool_read_scratchpad", "tool_delete_scratchpad"}),
    "full": frozenset(
        {
            "tool_write_scratchpad",
            "tool_read_scratchpad",
            "tool_delete_scratchpad",
            "tool_set_value",
            "tool_get_value",
            "tool_delete_value",
        }
    ),
}
RECOVERY: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "reset": frozenset({"tool_reset_beliefs"}),
    "audit": frozenset({"tool_audit_predictions"}),
    "help": frozenset({"tool_ask_help"}),
    "all": frozenset({"tool_reset_beliefs", "tool_audit_predictions", "tool_ask_help"}),
}
ARGUMENTS: Mapping[str, dict[str, Any]] = {
    "tool_write_scratchpad": {"text": "sku_0 sells"},
    "tool_read_scratchpad": {},
    "tool_delete_scratchpad": {},
    "tool_set_value": {"key": "best", "value": "S1"},
    "tool_get_value": {"key": "best"},
    "tool_delete_value": {"key": "best"},
    "tool_reset_beliefs": {},
    "tool_audit_predictions": {},
    "tool_ask_help": {},
}
"""Of every tool that an interface can add, arguments that fit; in this order none fails."""


def game(keys: Mapping[str, Any] | None = None, *, kind: str = "llm") -> Game:
    """A run on its first morning, with the fullest interface unless `keys` say otherwise."""
    chosen = {
        "agent.kind": kind,
        "agent.interface.memory_tools": "full",
        "agent.interface.recovery_tools": "all",
        "agent.model.context_length": 32_000,
        **(keys or {}),
    }
    run = Game(settings(chosen), seed=0, replication=0)
    run.morning()
    return run


def added(run: Game) -> list[str]:
    """Names of the offered tools that an interface adds, in the order offered."""
    return [tool.name for tool in run.tools.offered if tool.name in ARGUMENTS]


def told(memory: str, recovery: str) -> tuple[set[str], set[str], set[str]]:
    """Names of added tools in the prompt, in the reply's schema, and that can be called."""
    keys = {"agent.interface.memory_tools": memory, "agent.interface.recovery_tools": recovery}
    run = game(keys)
    interface = settings({"agent.kind": "llm", **keys}).agent.interface
    chosen = settings({"agent.kind": "llm", **keys})
    prompt = system_text(briefing(chosen, run.world, run.tools.offered), interface)
    schema = reply_schema(run.tools.offered, interface)
    constants = {each["properties"]["tool"]["const"] for each in json.loads(schema)["anyOf"]}
    called = {name: run.tools.call(name, args) for name, args in ARGUMENTS.items()}
    assert {c.failure for c in called.values()} <= {None, "unknown_tool"}
    return (
        {name for name in ARGUMENTS if f"- {name}: " in prompt},
        constants & set(ARGUMENTS),
        {name for name, each in called.items() if each.succeeded},
    )
