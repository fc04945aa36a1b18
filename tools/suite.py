"""How long each suite of `make test` takes, said at its end.

    python tools/suite.py unit -- pytest ...     run a command, and keep its seconds
    python tools/suite.py --told                 what was kept, as a table; then forget it

The exit status is the command's. A suite that has parts (pytest runs several kinds of tests side by
side) may add lines of its own to the file that VENDOMINI_SUITES names.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

KEPT = Path(__file__).resolve().parent.parent / ".suites"


def main(words: list[str]) -> int:
    """Run one suite, or tell of all."""
    if words == ["--told"]:
        print("seconds by suite")
        print(KEPT.read_text(encoding="utf-8"), end="")
        KEPT.unlink()
        return 0
    name, dashes, *command = words
    assert dashes == "--", __doc__
    started = time.monotonic()
    environment = {**os.environ, "VENDOMINI_SUITES": str(KEPT)}
    try:
        status = subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        status = 130
    with KEPT.open("a", encoding="utf-8") as file:
        failed = f"  failed: exit status {status}" if status else ""
        file.write(f"  {name:<14} {time.monotonic() - started:6.0f}{failed}\n")
    if status:
        main(["--told"])
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
