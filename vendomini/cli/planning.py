"""`plan` in the terminal."""

from vendomini.cli import planned, show
from vendomini.cli.options import Options
from vendomini.looking.prepared import checked, prepare
from vendomini.prepare import plan_as_json


def show_plan(options: Options) -> int:
    """`plan`, and `run --dry-run`; the exit status."""
    request = options.request()
    prepared, tried = prepare(request, only_plan=True), None
    if options.check:
        prepared, tried = checked(request, prepared, meanwhile=show.meanwhile)
    if options.explain is not None:
        planned.explain(prepared.plan, options.explain)
        return 0
    if tried is not None:
        from vendomini.cli import selftest
    if options.as_json:
        axes = {} if tried is None else {"self_test": selftest.as_json(tried)}
        show.print_json(plan_as_json(prepared.plan) | axes)
    else:
        planned.plan(prepared.plan, to=show.OUT)
        if tried is not None:
            selftest.axes(tried)
    for warning in prepared.plan.warnings:
        show.say(f"warning: {warning}")
    return 0
