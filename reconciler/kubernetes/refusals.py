"""Which faults of a call to the API server pass by themselves, and how to call them when they are told once. Pure."""

from __future__ import annotations

from reconciler.kubernetes.api import ApiError, Unreachable

NOT_FOUND, CONFLICT, INVALID, TOO_MANY, FORBIDDEN = 404, 409, 422, 429, 403


def passes(error: Exception) -> bool:
    """Whether the same call may be answered otherwise in a moment."""
    if isinstance(error, ApiError):
        return error.status == TOO_MANY or error.status >= 500
    return isinstance(error, Unreachable)


def passes_or_conflicts(error: Exception) -> bool:
    """The same for a write that looks again after a conflict."""
    return passes(error) or (isinstance(error, ApiError) and error.status == CONFLICT)


def cause(error: Exception) -> str:
    """The same for faults that have the same remedy, whichever object they are about."""
    return f"{error.status} {error.reason}" if isinstance(error, ApiError) else type(error).__name__


def is_of_the_going(error: Exception) -> bool:
    """Whether nothing can be written into the namespace only because it is being deleted, which is nobody's fault."""
    return isinstance(error, ApiError) and error.status == FORBIDDEN and "is being terminated" in error.message
