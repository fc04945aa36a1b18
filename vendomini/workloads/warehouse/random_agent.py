"""The random agent: any offered tool with arguments that make sense, drawn by key."""

from typing import Any

from vendomini.workloads.warehouse.agent import Briefing, Decision, Seen
from vendomini.workloads.warehouse.draws import Stream

LARGEST_ORDER = 20  # units


class RandomAgent:
    """Plays one run; predicts nothing. Ids come from what it was told and from results."""

    __slots__ = ("_briefing", "_customers", "_draws", "_orders")

    def __init__(self, briefing: Briefing, *, seed: int, replication: int) -> None:
        self._briefing = briefing
        self._draws = Stream("random agent", seed=seed, replication=replication)
        self._customers: list[str] = []
        self._orders: list[str] = []

    def decide(self, seen: Seen) -> Decision:
        result = seen.last_result or {}
        if "eta_day" in result:
            self._orders.append(result["order_id"])
        for message in result.get("messages", ()):
            if message["type"] == "customer_order":
                self._customers.append(message["customer_order_id"])
            elif message["type"] == "delivery" and message["order_id"] in self._orders:
                self._orders.remove(message["order_id"])
        tool = self._draws.choice(self._briefing.tools, seen.day, 0)
        arguments: dict[str, Any] = {}
        for place, name in enumerate(tool.schema["properties"], start=1):
            arguments[name] = self._argument(name, seen.day, place)
        return Decision(tool=tool.name, arguments=arguments)

    def _argument(self, name: str, day: int, place: int) -> object:
        match name:
            case "supplier_id":
                return self._draws.choice(self._briefing.suppliers, day, place)
            case "sku":
                return self._draws.choice(self._briefing.skus, day, place)
            case "quantity":
                return self._draws.integer(1, LARGEST_ORDER, day, place)
            case "order_id":
                return self._taken(self._orders, "ORD0", day, place)
            case _:
                return self._taken(self._customers, "CO0", day, place)

    def _taken(self, known: list[str], otherwise: str, day: int, place: int) -> str:
        """One of the ids it knows, which it then forgets."""
        if not known:
            return otherwise
        return known.pop(int(len(known) * self._draws.uniform(day, place)))
