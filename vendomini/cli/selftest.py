"""What a self-test of a phase's axes found, in the terminal and for scripts."""

from vendomini.cli import show
from vendomini.looking.axes import Checked
from vendomini.prepare.selftest import TriedAxis


def axes(checked: Checked) -> None:
    """What each axis changes."""
    kept = ", kept from before" if checked.cached else ""
    show.say_out(f"axes: {checked.test.trials} trials, {checked.seconds:.1f} s{kept}")
    for axis in checked.test.axes:
        show.say_out(f"  {axis.axis}: {_worded(axis)}")


def as_json(checked: Checked) -> dict[str, object]:
    """The same for scripts."""
    return {
        "axes": [
            {
                "axis": axis.axis,
                "values": list(axis.values),
                "changes": list(axis.changes),
                "alike": [list(values) for values in axis.alike],
                "later": axis.later,
                "contexts": axis.tried,
            }
            for axis in checked.test.axes
        ],
        "trials": checked.test.trials,
        "seconds": round(checked.seconds, 3),
        "cached": checked.cached,
    }


# -- private -------------------------------------------------------------------------------


def _worded(axis: TriedAxis) -> str:
    if not axis.changes:
        return "changes nothing" if axis.alike else "not tried: its arms cannot be played yet"
    said = f"changes {', '.join(axis.changes)}"
    return said + (", some values only beyond a short trial" if axis.later else "")
