"""`run` in the terminal."""

import signal
from dataclasses import asdict

import typer

from vendomini.cli import show
from vendomini.cli.voice import Terminal
from vendomini.looking.prepared import Request
from vendomini.running.interruptions import INTERRUPTED, STOPS
from vendomini.running.phases import run as run_phase


def run(request: Request, *, as_json: bool = False) -> int:
    """Play a phase and say where it is; the exit status."""
    played = run_phase(request, Terminal(), joins=True)
    if played.exit_status == INTERRUPTED:
        # It was asked for, and has been done: one Ctrl-C more would only cut off the last words.
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
    if as_json:
        show.print_json(
            {
                "experiment": str(played.folder),
                "submission": played.submission,
                "runs": asdict(played.runs),
            }
        )
    else:
        typer.echo(str(played.folder))
    return played.exit_status
