"""`plan` in the terminal."""

from vendomini.cli import planned, show
from vendomini.looking.prepared import Request, checked, prepare
from vendomini.prepare import plan_as_json


def show_plan(
    request: Request, *, check: bool = False, explain: str | None = None, as_json: bool = False
) -> int:
    """`plan`, and `run --dry-run`; the exit status.

    `check` tries the axes; `explain` tells all that decided for this model.
    """
    prepared, tried = prepare(request, only_plan=True), None
    if check:
        prepared, tried = checked(request, prepared, meanwhile=show.meanwhile)
    if explain is not None:
        planned.explain(prepared.plan, explain)
        return 0
    if tried is not None:
        from vendomini.cli import selftest
    if as_json:
        axes = {} if tried is None else {"self_test": selftest.as_json(tried)}
        show.print_json(plan_as_json(prepared.plan) | axes)
    else:
        planned.plan(prepared.plan, to=show.OUT)
        if tried is not None:
            selftest.axes(tried)
    return 0
