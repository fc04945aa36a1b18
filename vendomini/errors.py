"""Errors a user can fix. Anything else is a bug and keeps its traceback.

VendoMiniError
├── ConfigError       a phase file or a command line says something impossible
│   └── UnknownWorkload  no package that is installed brings the workload it names
├── WorkloadError     a workload asks for what cannot be had, or its own code fails
├── PlanError         no hardware in the cluster fits the request
├── SubmitError       Slurm refused the job
├── EngineError       the model could not be loaded or stopped answering
│   ├── EngineDead    the engine's process has ended: nothing will be answered any more
│   └── EngineLacks   a run needs what its engine cannot do
└── StoreError        an experiment's folder is missing, locked or inconsistent
    ├── DiskError     a file operation failed, and trying it again did not help
    └── ReplayError   a run, started again, asked something else than it had asked before
"""

from typing import ClassVar


class VendoMiniError(Exception):
    """Base class: what is wrong, then on its own line what to do about it."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(VendoMiniError):
    """A phase file or a command line says something impossible."""


class UnknownWorkload(ConfigError):
    """No installed package brings a workload of that name."""


class WorkloadError(VendoMiniError):
    """A workload asks for what cannot be had, or its code failed after its runs were played."""


class PlanError(VendoMiniError):
    """No hardware that may be used fits the request."""


class SubmitError(VendoMiniError):
    """Slurm refused a job, or could not be asked."""

    exit_code: ClassVar[int] = 3


class EngineError(VendoMiniError):
    """A model could not be loaded or stopped answering."""

    exit_code: ClassVar[int] = 3


class EngineDead(EngineError):
    """An engine has ended by itself: it answers this request no more, and no other."""


class EngineLacks(EngineError):
    """A run needs what its engine cannot do: so do the others of its group, and every time."""


class StoreError(VendoMiniError):
    """An experiment's folder is missing, unwritable, locked or inconsistent."""


class DiskError(StoreError):
    """A file operation failed, as the system says by its error number `errno`."""

    def __init__(self, message: str, *, errno: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class ReplayError(StoreError):
    """A run that was started again asked something else than its log says it had asked."""
