"""Everything a run's agent can call: the warehouse's tools, and those its interface adds."""

from vendomini.workloads.warehouse.cards import Predictions
from vendomini.workloads.warehouse.settings import AgentSettings
from vendomini.workloads.warehouse.tools import Called, Tool, call, offered
from vendomini.workloads.warehouse.world import World

AUDITED = 10  # predictions that an audit lists, the newest
ASKING = ("llm", "scripted")  # kinds of agents that an interface adds tools for


def audited(agent: AgentSettings) -> int:
    """How many resolved predictions must be kept for the agent's tools."""
    audits = agent.interface.recovery_tools in ("audit", "all")
    return AUDITED if audits and agent.kind in ASKING else 0


class Toolbox:
    """The tools of one run. Agents that never ask have those of the warehouse alone."""

    __slots__ = ("_predictions", "_world", "offered")

    def __init__(
        self, world: World, *, agent: AgentSettings, complexity_level: int, predictions: Predictions
    ) -> None:
        self._world = world
        self._predictions = predictions
        self.offered: tuple[Tool, ...] = offered(complexity_level)

    def call(self, tool: object, arguments: object) -> Called:
        """Make the day's call. Takes anything at all as tool and arguments, and never raises."""
        return call(self._world, tool, arguments)
