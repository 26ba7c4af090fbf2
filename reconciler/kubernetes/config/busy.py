"""Reasons to keep a service awake without a client: its busy check, its annotation, and bypassed proxies. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime

from reconciler.core import validation
from reconciler.core.busy import BusyUntil
from reconciler.core.reasons import Blocker, Problem, Reason
from reconciler.core.validation import MAX_PORT, Notation
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import LONGEST_SHOWN, RFC3339
from reconciler.kubernetes.types.scaled_service import BUSY_UNTIL_ANNOTATION, BusyCheck, ScaledService

MAX_PATH_LENGTH = 1024
_PATH = re.compile(r"/[!-~]*")


def path_problem(place: str, path: str) -> Problem | None:
    """Check the path of a busy check: it becomes part of a request line."""
    if len(path) <= MAX_PATH_LENGTH and _PATH.fullmatch(path):
        return None
    what = f"{path[:LONGEST_SHOWN]!r} is not a valid path"
    return Problem(Reason.BAD_SPEC, place, what, "start it with /, without spaces, for example /busy")


def check_problems(check: BusyCheck | None, names: Notation) -> Iterator[Problem | None]:
    """Return the problems of a busy check."""
    if check is None:
        return
    if not check.http:
        right = f"set for example {names.key('busy.http')}: /busy"
        yield Problem(Reason.BAD_SPEC, names.place("busy.http"), "required for a busy check", right)
    else:
        yield path_problem(names.place("busy.http"), check.http)
    if check.port is not None:
        yield validation.number_problem(names.place("busy.port"), check.port, MAX_PORT, 80)


def busy_until(item: ScaledService | None, service: Service | None) -> BusyUntil | None:
    """Return the later of the times in the annotations of a ScaledService and of its Service; None without them.

    A value that is not valid keeps the service awake: the application meant to be busy.
    """
    metas = [one.metadata for one in (item, service) if item is not None and one is not None]
    texts = [meta.annotations[BUSY_UNTIL_ANNOTATION] for meta in metas if BUSY_UNTIL_ANNOTATION in meta.annotations]
    return max((_parse(text) for text in texts), key=lambda until: until.at, default=None)


class BusyReasons:
    """The reasons to keep services awake without a client; `on_busy_until` is called with one of each service."""

    def __init__(self, on_busy_until: Callable[[str, BusyUntil | None], None]) -> None:
        self._on_busy_until = on_busy_until
        self._busy: dict[str, BusyUntil] = {}
        self._bypassed: dict[str, BusyUntil] = {}

    def called_busy(self, service: str, until: BusyUntil | None) -> None:
        """Set the time until which an application calls itself busy."""
        self._set(self._busy, service, until)

    def bypassed(self, service: str, blocker: Blocker | None) -> None:
        """Set the reason why callers may reach a service without the proxy."""
        self._set(self._bypassed, service, BusyUntil(math.inf, blocker) if blocker else None)

    def _set(self, reasons: dict[str, BusyUntil], service: str, until: BusyUntil | None) -> None:
        if until:
            reasons[service] = until
        else:
            reasons.pop(service, None)
        self._on_busy_until(service, self._bypassed.get(service) or self._busy.get(service))


def _parse(text: str) -> BusyUntil:
    shown = f"{BUSY_UNTIL_ANNOTATION}: {text[:LONGEST_SHOWN]}"
    try:
        if RFC3339.fullmatch(text):
            return BusyUntil(datetime.fromisoformat(text).timestamp(), Blocker(Reason.BUSY_UNTIL, shown))
    except (ValueError, OverflowError):  # such as a month 13
        pass
    message = f"{shown} is not a time; use for example 2026-11-23T10:00:00Z, or remove it"
    return BusyUntil(math.inf, Blocker(Reason.BAD_ANNOTATION, message))
