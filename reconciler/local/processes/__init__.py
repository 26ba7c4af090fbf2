"""The process backend: services as processes of this machine."""

from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.processes.program import Program
from reconciler.local.processes.site import StateDirInUse, read_notes

__all__ = ["ProcessBackend", "Program", "StateDirInUse", "read_notes"]
