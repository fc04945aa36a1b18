"""Where the program begins: Ctrl-C while it is still being loaded leaves no traceback either."""

import sys


def main() -> None:
    """Load the commands and run the one that is asked for."""
    try:
        from vendomini.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
