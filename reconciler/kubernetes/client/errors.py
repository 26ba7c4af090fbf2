"""Errors of calls to the API server, and their classification. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE, INVALID, TOO_MANY = 401, 403, 404, 409, 410, 422, 429
DENIED = (UNAUTHORIZED, FORBIDDEN)


class Unreachable(Exception):
    """The API server did not answer: refused, cut off, or too slow. A write may have taken effect."""


class ApiError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


@contextmanager
def ignoring(*statuses: int) -> Iterator[None]:
    """Suppress errors of the API server with one of these statuses."""
    try:
        yield
    except ApiError as error:
        if error.status not in statuses:
            raise


class NoCluster(Exception):
    """No usable configuration of a cluster; the message is for people."""


def is_transient(error: Exception) -> bool:
    """Return whether the same call may succeed in a moment."""
    if isinstance(error, ApiError):
        return error.status == TOO_MANY or error.status >= 500
    return isinstance(error, Unreachable)


def is_transient_or_conflict(error: Exception) -> bool:
    """Return whether a call that reads the object again may succeed in a moment."""
    return is_transient(error) or (isinstance(error, ApiError) and error.status == CONFLICT)


def is_of_a_webhook(error: Exception) -> bool:
    """Return whether a webhook of the cluster, for admission or conversion, does not answer the API server.

    The API server gives this error no code of its own; its message is the only sign. It lasts until a person repairs
    the webhook.
    """
    return isinstance(error, ApiError) and error.status >= 500 and "webhook" in error.message


def error_key(error: Exception) -> str:
    """Return a text that is equal for errors with the same remedy, whichever object they are about."""
    return f"{error.status} {error.reason}" if isinstance(error, ApiError) else type(error).__name__


def is_namespace_terminating(error: Exception) -> bool:
    """Return whether the namespace accepts no objects because it is being deleted.

    The API server gives this refusal no code of its own; its message is the only sign.
    """
    return isinstance(error, ApiError) and error.status == FORBIDDEN and "is being terminated" in error.message
