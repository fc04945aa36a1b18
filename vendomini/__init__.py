"""VendoMini: grids of LLM-agent experiments, planned, played on shared engines, never lost.

What a Python caller has is in `docs/python.md`. It is loaded when it is first used: a worker, and
most commands, need none of it.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers take it for true, and `typing` need not be loaded for it
if TYPE_CHECKING:
    from vendomini.api import load, plan, run, status
    from vendomini.collect import Tables
    from vendomini.errors import (
        ConfigError,
        EngineError,
        PlanError,
        StoreError,
        SubmitError,
        VendoMiniError,
        WorkloadError,
    )
    from vendomini.prepare import Plan
    from vendomini.running.phases import Played
    from vendomini.standing import Status

__all__ = [
    "ConfigError",
    "EngineError",
    "Plan",
    "PlanError",
    "Played",
    "Status",
    "StoreError",
    "SubmitError",
    "Tables",
    "VendoMiniError",
    "WorkloadError",
    "__version__",
    "load",
    "plan",
    "run",
    "status",
]

_ROOMS = {
    **dict.fromkeys(("load", "plan", "run", "status"), "vendomini.api"),
    "Plan": "vendomini.prepare",
    "Played": "vendomini.running.phases",
    "Status": "vendomini.standing",
    "Tables": "vendomini.collect",
}
"""Where what is served lives; the errors have a module of their own."""

if not TYPE_CHECKING:  # else any name would be one that there is

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_ROOMS.get(name, "vendomini.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
