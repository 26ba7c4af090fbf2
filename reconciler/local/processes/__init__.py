"""The process backend: services as processes of this machine."""

from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.processes.notes import StateDirInUse, read_notes
from reconciler.local.processes.program import Program

__all__ = ["ProcessBackend", "Program", "StateDirInUse", "read_notes"]
