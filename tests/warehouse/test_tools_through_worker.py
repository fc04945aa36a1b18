"""What an interface offers, through the real worker from a phase file."""

from pathlib import Path

from tests.warehouse.modelled import call
from tests.warehouse.worked import in_turn, worked


def test_a_call_is_made_and_its_result_logged(tmp_path: Path) -> None:
    keys = {"agent.interface.beliefs_every": None}
    run = worked(tmp_path, keys, in_turn(call("tool_check_budget"), then=call("tool_wait")))
    assert run.results("tool_check_budget") == [{"success": True, "budget": 10000.0}]
    assert len(run.steps) == len(run.requests) == run.outcome["steps"] == 20
