"""The process backend: services as processes of this machine."""

from reconciler.adapters.processes.backend import ProcessBackend
from reconciler.adapters.processes.program import Program
from reconciler.adapters.processes.site import StateDirInUse, read_notes

__all__ = ["ProcessBackend", "Program", "StateDirInUse", "read_notes"]
