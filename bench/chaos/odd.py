"""placeholder"""

from collections.abc import Iterator
from typing import Any


def play(**_: Any) -> Iterator[dict[str, Any]]:
    yield from ()
