"""Everything a run's agent can call: the warehouse's tools, and those its interface adds."""

from collections import deque
from collections.abc import Mapping

from vendomini.workloads.warehouse.arguments import violation
from vendomini.workloads.warehouse.cards import Predictions
from vendomini.workloads.warehouse.memory import Act, Memory, memory_tools
from vendomini.workloads.warehouse.recovery import (
    AUDIT,
    CALLS,
    HELP,
    RESET,
    News,
    audit,
    facts,
    hint,
    recovery_tools,
    situation,
)
from vendomini.workloads.warehouse.settings import AgentSettings
from vendomini.workloads.warehouse.tools import Called, Refused, Tool, call, failed_call, offered
from vendomini.workloads.warehouse.world import World

AUDITED = 10  # predictions that an audit lists, the newest
ASKING = ("llm", "probe")  # kinds of agents that an interface adds tools for


def audited(agent: AgentSettings) -> int:
    """How many resolved predictions must be kept for the agent's tools."""
    audits = agent.interface.recovery_tools in ("audit", "all")
    return AUDITED if audits and agent.kind in ASKING else 0


class Toolbox:
    """The tools of one run. Agents that never ask have those of the warehouse alone."""

    __slots__ = ("_acts", "_added", "_last", "_news", "_world", "offered")

    def __init__(
        self, world: World, *, agent: AgentSettings, complexity_level: int, predictions: Predictions
    ) -> None:
        self._world = world
        added: tuple[Tool, ...] = ()
        if agent.kind in ASKING:
            added = memory_tools(agent.interface) + recovery_tools(agent.interface)
        self.offered: tuple[Tool, ...] = offered(complexity_level) + added
        self._added: Mapping[str, Tool] = {tool.name: tool for tool in added}
        self._acts: Mapping[str, Act] = {
            **Memory().acts,
            RESET: lambda arguments: facts(world, self._news),
            AUDIT: lambda arguments: audit(predictions),
            HELP: lambda arguments: hint(situation(world, self._news, self._last)),
        }
        self._last: deque[Called] = deque(maxlen=CALLS)  # other than for help
        self._news = News(world)

    def call(self, tool: object, arguments: object) -> Called:
        """Make the day's call. Takes anything at all as tool and arguments, and never raises."""
        if not self._added:
            return call(self._world, tool, arguments)
        called = self._call(tool, arguments)
        self._news.called(called)
        if called.tool != HELP:
            self._last.append(called)
        return called

    def _call(self, tool: object, arguments: object) -> Called:
        if not isinstance(tool, str) or tool not in self._added:
            return call(self._world, tool, arguments)
        try:
            wrong = violation(self._added[tool].schema, arguments)
            if wrong is not None:
                raise Refused("invalid_arguments", wrong)
            assert isinstance(arguments, dict)
            said = self._acts[tool](arguments)
        except Refused as refused:
            return failed_call(tool, arguments, refused)
        return Called(tool=tool, arguments=arguments, result={"success": True, **said})
