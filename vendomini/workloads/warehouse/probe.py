"""The probe, an agent for tests of everything round the world: it asks once a step.

Each request is one user message: the day, how many messages wait, and the last result. The
reply decides, and only the reply:

- JSON text ``{"tool": ..., "args": {...}}``, with or without ``"card": {...}``, is the call;
- any other text picks from a menu of sensible calls by its SHA-256.
"""

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from vendomini.chat import ChatRequest, Episode, Message, Sampling, ask
from vendomini.phase import ModelSettings
from vendomini.workloads.warehouse.agent import Briefing, Decision, Seen
from vendomini.workloads.warehouse.card import Card

SHOWN_RESULT = 1000  # characters of the last result in a request
QUANTITIES = 10

Arguments: TypeAlias = dict[str, Any]


class ProbeReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reply that says what to call."""

    tool: str
    args: Any = {}
    card: Card | None = None


_READER = msgspec.json.Decoder(ProbeReply)


class Probe:
    """Plays one run."""

    __slots__ = ("_briefing", "_customers", "_model", "_sampling")

    def __init__(self, briefing: Briefing, model: ModelSettings) -> None:
        self._briefing = briefing
        self._model = model
        self._sampling = Sampling(
            temperature=model.temperature,
            top_p=model.top_p,
            max_tokens=model.max_tokens_per_call,
        )
        self._customers: list[str] = []  # ids it has read of and not tried to ship

    def ask(self, seen: Seen) -> Episode[Decision]:
        result = seen.last_result or {}
        for message in result.get("messages", ()):
            if message["type"] == "customer_order":
                self._customers.append(message["customer_order_id"])
        reply = yield from ask(self._request(seen))
        return self._read(reply.text)

    def _request(self, seen: Seen) -> ChatRequest:
        last = msgspec.json.encode(seen.last_result).decode()[:SHOWN_RESULT]
        content = f"Day {seen.day}, {seen.inbox_count} messages wait. Last result: {last}"
        return ChatRequest(
            messages=(Message(role="user", content=content),),
            sampling=self._sampling,
            thinking=self._model.thinking,
        )

    def _read(self, text: str) -> Decision:
        try:
            said = _READER.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            tool, arguments = self._from_menu(text)
            return Decision(tool=tool, arguments=arguments)
        return Decision(tool=said.tool, arguments=said.args, card=said.card)

    def _from_menu(self, text: str) -> tuple[str, Arguments]:
        digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()
        supplier = self._briefing.suppliers[digest[1] % len(self._briefing.suppliers)]
        sku = self._briefing.skus[digest[2] % len(self._briefing.skus)]
        quantity = 1 + digest[3] % QUANTITIES
        supplied = {"supplier_id": supplier, "sku": sku, "quantity": quantity}
        menu: tuple[Callable[[], tuple[str, Arguments]], ...] = (
            lambda: ("tool_check_inbox", {}),
            lambda: ("tool_check_storage", {}),
            lambda: ("tool_check_budget", {}),
            lambda: ("tool_wait", {}),
            lambda: ("tool_quote", supplied),
            lambda: ("tool_order", supplied),
            self._ship,
        )
        return menu[digest[0] % len(menu)]()

    def _ship(self) -> tuple[str, Arguments]:
        if not self._customers:
            return "tool_check_inbox", {}
        return "tool_ship_customer_order", {"customer_order_id": self._customers.pop()}
