"""A fake model: it reads the conversation, keeps its own small books, and answers in JSON.

It counts tokens by a function of the text, and refuses what does not fit a window as an engine
does.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vendomini.chat import ChatRequest, Choice, Reply

COUNTERS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "quarters": lambda text: (len(text) + 3) // 4,
    "characters": lambda text: len(text),
}


def context_reply() -> Reply:
    return Reply(choices=(Choice(text="", finish_reason="context"),))


@dataclass(slots=True, kw_only=True)
class Counting:
    """Answers by `say`, with counts, as long as the request and its reply fit the window."""

    say: Callable[[ChatRequest], str]
    window: int
    count: Callable[[str], int] = COUNTERS["quarters"]
    refused: int = 0
    longest: int = 0  # request with room for its reply
    requests: list[ChatRequest] = field(default_factory=list)

    def __call__(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        asked = self.tokens(request)
        needed = asked + request.sampling.max_tokens
        if needed > self.window:
            self.refused += 1
            return context_reply()
        self.longest = max(self.longest, needed)
        text = self.say(request)
        return Reply(choices=(Choice(text=text),), tokens_in=asked, tokens_out=self.count(text))

    def tokens(self, request: ChatRequest) -> int:
        return sum(self.count(message.content) + 4 for message in request.messages)


def call(tool: str, args: dict[str, Any] | None = None, **card: Any) -> str:
    """A readable reply with a whole structured card; `card` replaces fields of it."""
    prediction: dict[str, Any] = {
        "expected_success": True,
        "expected_storage_after": 0,
        "expected_budget_after": 10000,
        "next_tool": "tool_wait",
    }
    if tool == "tool_order":
        prediction |= {"expected_cost": 100, "expected_lead_days": 3, "expected_quantity": 20}
    if tool in ("tool_cancel_order", "tool_expedite"):
        prediction |= {"expected_cost": 100}
    if tool == "tool_expedite":
        prediction |= {"expected_lead_days": 3}
    return json.dumps({"tool": tool, "args": args or {}, "prediction": prediction | card})


@dataclass(slots=True)
class Storekeeper:
    """Orders what customers ask for, ships it when it is there, looks and waits otherwise."""

    wanted: dict[str, tuple[str, int]] = field(default_factory=dict)
    stock: dict[str, int] = field(default_factory=dict)
    worth: dict[str, float] = field(default_factory=dict)  # what customers paid last, by SKU
    coming: set[str] = field(default_factory=set)  # SKUs
    quoted: str | None = None  # the SKU it has just asked the price of
    calls: int = 0

    def __call__(self, request: ChatRequest) -> str:
        said = request.messages[-1].content
        result = re.search(r"Result of your last call: (.*)", said)
        told = json.loads(result[1]) if result else {}
        for message in told.get("messages", ()):
            if message["type"] == "customer_order":
                sku = message["sku"]
                self.wanted[message["customer_order_id"]] = sku, message["quantity"]
                self.worth[sku] = message["unit_sale_price"]
            elif message["type"] == "delivery":
                sku = message["sku"]
                self.stock[sku] = self.stock.get(sku, 0) + message["quantity"]
                self.coming.discard(sku)
        for shipped in told.get("shipped", ()):
            self.stock[shipped["sku"]] -= shipped["quantity"]
        self.calls += 1
        return self.choose(told, waiting=bool(re.search(r"Inbox: [1-9]", said)))

    def choose(self, told: dict[str, Any], *, waiting: bool) -> str:
        if "unit_price" in told and self.quoted is not None:
            sku, self.quoted = self.quoted, None
            if told["unit_price"] <= 0.8 * self.worth[sku]:
                self.coming.add(sku)
                args = {"supplier_id": "S1", "sku": sku, "quantity": 20}
                cost, days = 20 * told["unit_price"], told["lead_days"]
                return call("tool_order", args, expected_cost=cost, expected_lead_days=days)
        for id, (sku, quantity) in list(self.wanted.items()):
            del self.wanted[id]
            if self.stock.get(sku, 0) >= quantity:
                return call("tool_ship_customer_order", {"customer_order_id": id})
            if sku not in self.coming and self.stock.get(sku, 0) < 20:
                self.quoted = sku
                args = {"supplier_id": "S1", "sku": sku, "quantity": 20}
                return call("tool_quote", args)
        if waiting:
            return call("tool_check_inbox")
        idle = ("tool_wait", "tool_check_budget", "tool_check_storage")
        return call(idle[self.calls % 3])
