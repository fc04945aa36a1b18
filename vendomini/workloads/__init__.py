"""What runs play. For a workload of your own: docs/workloads.md."""

from vendomini.workloads.workload import (
    Demand,
    Length,
    Measure,
    RecordStep,
    Trial,
    Workload,
)

__all__ = ["Demand", "Length", "Measure", "RecordStep", "Trial", "Workload"]
