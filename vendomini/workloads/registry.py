"""The workloads that can be named in a phase file."""

import difflib

from vendomini.errors import ConfigError
from vendomini.workloads.warehouse.workload import WAREHOUSE
from vendomini.workloads.workload import Workload

WORKLOADS: dict[str, Workload] = {WAREHOUSE.name: WAREHOUSE}


def workload_named(name: str) -> Workload:
    """Raises `ConfigError` naming the nearest workload there is."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    nearest = difflib.get_close_matches(name, WORKLOADS, n=1, cutoff=0.0)[0]
    raise ConfigError(
        f"`experiment.workload` is `{name}`, which is no workload",
        hint=f"did you mean `{nearest}`? There are: {', '.join(sorted(WORKLOADS))}",
    )
