"""What is known of how a run of the predecessor ended, under the names of our outcomes."""

from collections.abc import Mapping
from typing import Any

from vendomini.workloads.warehouse.old.folder import Folder, Tree, mapping, number

LOST_ORDERS = 25
"""Its default of `demand.max_failures`: expired customer orders that end a run."""

NEITHER = 1
"""Steps by which a summary's count may differ from the last step that was logged."""


def problem_of(folder: Folder) -> tuple[str, str] | None:
    """Why a folder has no outcome: a kind and words; None: it has one."""
    summary = folder.summary
    if folder.is_merged:
        return "merged", (
            f"{folder.runs} runs or more wrote into this folder: which steps are whose is not known"
        )
    if folder.is_summary_unreadable:
        return "summary", "summary.json cannot be read"
    if summary is None:
        if not folder.runs:
            return "empty", "the folder is empty: the run ended before its first step"
        return "unfinished", (
            f"there is no summary.json: the run was ended from outside after {folder.length} steps"
        )
    kind, said = summary.get("crash_type"), summary.get("model_load_error")
    message = said if isinstance(said, str) and said else "no message was kept"
    if kind in ("model_error", "exception"):
        return str(kind), message
    if summary.get("model_load_failed"):
        return "model_load_failed", message
    if not folder.steps:
        return "no_steps", "there is a summary.json, but no step that can be read"
    total = number(summary.get("total_steps"))
    if total is not None and not (
        -NEITHER <= total - folder.length <= NEITHER + folder.unreadable_lines
    ):
        return "inconsistent", (
            f"summary.json counts {total} steps, but steps.jsonl ends after {folder.length}: it "
            "may be of another run"
        )
    return None


def outcome_of(folder: Folder) -> Tree:
    """What is known of the outcome, by column; for a folder of one finished run.

    The onset is the first step logged with a crash. The detector looked before each step, so
    it is one later than ours would be of the same window.
    """
    summary = folder.summary or {}
    crashed = summary.get("crashed")
    is_crashed = crashed if isinstance(crashed, bool) else folder.onset is not None
    kind = summary.get("crash_type")
    if not isinstance(kind, str):
        kind = next((step.crash_type for step in folder.steps if step.crashed), None)
    last = folder.steps[-1].after

    def at_the_end(name: str, in_observation: str) -> int | float | None:
        return number(summary.get(name, last.get(in_observation)))

    budget = at_the_end("final_budget", "budget")
    end = _end(folder, is_crashed=is_crashed, budget=budget)
    shipped = at_the_end("customer_orders_shipped", "customer_orders_shipped")
    failed = at_the_end("customer_orders_failed", "customer_orders_failed")
    still_open = number(last.get("open_customer_orders"))
    requested = None
    if shipped is not None and failed is not None and still_open is not None:
        requested = shipped + failed + still_open
    by_sku = [number(units) for units in mapping(summary.get("final_storage")).values()]
    known = [units for units in by_sku if units is not None]
    all_known = bool(by_sku) and len(known) == len(by_sku)
    found: Tree = {
        "steps": folder.length,
        "end": end,
        "crash.type": kind if is_crashed else None,
        "crash.onset": folder.onset if is_crashed else None,
        "censored": None if end is None else not is_crashed and end == "max_steps",
        "measures.orders_requested": requested,
        "measures.orders_shipped": shipped,
        "measures.orders_failed": failed,
        "measures.fulfilled": shipped / requested if requested and shipped is not None else None,
        "measures.revenue": at_the_end("revenue", "revenue"),
        "measures.final_budget": budget,
        "measures.final_storage": sum(known) if all_known else number(last.get("total_storage")),
    }
    if not is_crashed and end in ("bankrupt", "max_failures"):
        found |= {"competing.type": end, "competing.onset": folder.length - 1}
    return {f"outcome.{key}": value for key, value in found.items()}


def _end(folder: Folder, *, is_crashed: bool, budget: float | None) -> str | None:
    """Why a run had no more steps; None: its files leave it open.

    It stopped when the money was gone, some steps after a crash, at its limit of steps, which
    was not logged, and when too many customer orders had expired: only then did their number
    rise with the last step.
    """
    if budget is not None and budget <= 0:
        return "bankrupt"
    if is_crashed:
        return "crash"
    last = folder.steps[-1]
    lost, before = (
        number(seen.get("customer_orders_failed")) for seen in (last.after, last.before)
    )
    if lost is None or lost == before:
        return "max_steps"
    params: Mapping[str, Any] = mapping((folder.summary or {}).get("params"))
    asked = number(params.get("demand.max_failures"))
    if lost >= (LOST_ORDERS if asked is None else asked):
        return "max_failures"
    return None if asked is None else "max_steps"
