"""Work without a connection: answers of busy checks, and times until which an application calls itself busy. Pure.

Rule: unknown is not idle. A check that fails keeps its service awake, as an answer that it is busy does. A check is
asked only if its service would otherwise fall asleep, and once more as the last step of a drain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core.reasons import Blocker, Reason
from reconciler.core.spec import Spec

CHECK_SECONDS = 5.0
"""The longest time of a question to one program."""
ASK_AGAIN_SECONDS = 60.0
"""The longest time until a service that is kept awake by its check is asked again."""
SHORTEST_PAUSE_SECONDS = 1.0
"""The shortest such time: without it, an `idle_after` of a millisecond would lead to questions without a pause."""
NOT_ANSWERED = Blocker(Reason.BUSY_CHECK_PENDING, "the busy check is not answered yet")
NO_CONTENT = 204


@dataclass(frozen=True, slots=True)
class BusyAnswer:
    """The answer of a busy check."""

    asked_at: float
    """Time of the question, in seconds since the epoch."""
    blocker: Blocker | None = None
    """The reason to stay awake; None if the service is idle."""
    failures: int = 0
    """Number of failed checks in a row, including this one."""

    def after(self, before: BusyAnswer | None) -> BusyAnswer:
        """Return this answer with its failures counted, as the successor of another."""
        if self.blocker is None or self.blocker.code is not Reason.BUSY_CHECK_FAILED:
            return self
        return replace(self, failures=1 + (before.failures if before else 0))


@dataclass(frozen=True, slots=True)
class BusyUntil:
    """A time until which an application calls itself busy."""

    at: float
    """Seconds since the epoch; infinite if the application's value is not valid."""
    blocker: Blocker


def ask_again_after(spec: Spec) -> float:
    """Return the seconds after which a service that is kept awake by its check is asked again."""
    return min(max(spec.idle_after, SHORTEST_PAUSE_SECONDS), ASK_AGAIN_SECONDS)


def blocker_of(
    spec: Spec, answer: BusyAnswer | None, until: BusyUntil | None, now: float, asked_from: float = 0.0
) -> Blocker | None:
    """Return the reason to stay awake without a client, or None; answers from before `asked_from` do not count."""
    if until is not None and until.at > now:
        return until.blocker
    if spec.has_busy_check and answer is not None and answer.asked_at >= asked_from:
        return answer.blocker
    return None


def busy(message: str) -> Blocker:
    """Return the reason to stay awake of a check that answers busy."""
    return Blocker(Reason.BUSY, message)


def check_failed(message: str) -> Blocker:
    """Return the reason to stay awake of a check without a valid answer."""
    return Blocker(Reason.BUSY_CHECK_FAILED, message)


def of_status(question: str, status: int) -> Blocker | None:
    """Return the meaning of an HTTP status: 204 is idle, every other 2xx is busy, and the rest is a failed check.

    404 is not idle: a mistyped path would cut work.
    """
    if status == NO_CONTENT:
        return None
    if 200 <= status < 300:
        return busy(f"{question} is answered with {status}")
    return check_failed(f"{question} is answered with {status}; answer 200 while busy and 204 while idle")


def of_exit_code(command: str, code: int | None) -> Blocker | None:
    """Return the meaning of an exit code: 0 is busy, 1 is idle, and the rest is a failed check; None: it was killed."""
    if code == 1:
        return None
    end = describe_end(command, code)
    return busy(end) if code == 0 else check_failed(f"{end}; exit with 0 while busy and with 1 while idle")


def describe_end(command: str, code: int | None) -> str:
    """Return how the command of a probe or a check ended; None: it was killed."""
    return f"{command} is killed" if code is None else f"{command} exits with {code}"
