"""What one container's status says is wrong with it. Pure. Counterpart: `stalls.py`, which looks at all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.kubernetes.workloads import ContainerStatus, Event, Terminated

LONGEST_WORDS = 300
STARTING = ("ContainerCreating", "PodInitializing", "")
"""Reasons to wait that are no trouble."""
PULLS = ("ImagePullBackOff", "ErrImagePull")
_RPC = re.compile(r"\brpc error: code = \w+ desc = ")
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(?:: ErrImagePull: )?')
_PULL_FAILED = re.compile(r'^Failed to pull image "[^"]*": ')
KILLED = 137


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong. The lower the rank, the nearer to the cause."""

    rank: int
    text: str


def complaint(name: str, container: ContainerStatus, events: Sequence[Event]) -> Complaint | None:
    """`events` are warnings about its pod; `name` says which container of which pod it is, for people."""
    waiting = container.state.waiting
    if waiting and waiting.reason in PULLS:
        return Complaint(
            1, f"ImagePullBackOff: image {container.image} of {name} cannot be pulled: {_pull(container, events)}"
        )
    if ended := _crash(container):
        return Complaint(2, _crashes(name, container, ended))
    if waiting and waiting.reason not in STARTING:
        return Complaint(2, f"{waiting.reason}: {name}: {short(waiting.message) or 'no reason given'}")
    return None


def is_starting(container: ContainerStatus) -> bool:
    """Whether it never ran."""
    waiting = container.state.waiting
    return waiting is not None and waiting.reason in STARTING and container.last_state.terminated is None


def short(text: str) -> str:
    """On one line, without the noise of the calls in between, and not without end."""
    plain = _RPC.sub("", " ".join(text.split()))
    return plain if len(plain) <= LONGEST_WORDS else f"{plain[:LONGEST_WORDS]}…"


def _pull(container: ContainerStatus, events: Sequence[Event]) -> str:
    """The registry's words: newer kubelets repeat them while they wait, older ones have them in an Event only."""
    waiting = container.state.waiting
    words = short(_BACK_OFF.sub("", waiting.message if waiting else ""))
    if words:
        return words
    said = (event.message for event in events if event.reason == "Failed" and container.image in event.message)
    return next((short(_PULL_FAILED.sub("", one)) for one in said if _PULL_FAILED.match(one)), "") or "no reason given"


def _crash(container: ContainerStatus) -> Terminated | None:
    """How it ended, if it should not have: it waits to run again, has just ended, or runs again and is not ready."""
    ended = container.state.terminated or container.last_state.terminated
    if ended is None or container.ready:
        return None
    again = container.state.waiting is not None and container.state.waiting.reason == "CrashLoopBackOff"
    return ended if again or ended.exit_code or ended.reason == "OOMKilled" else None


def _crashes(name: str, container: ContainerStatus, ended: Terminated) -> str:
    restarts = f", restarted {_times(container.restart_count)}" if container.restart_count else ""
    said = f": {short(ended.message)}" if ended.message else ""
    if ended.reason == "OOMKilled":
        code = ended.exit_code or KILLED
        return f"OOMKilled: {name} needs more memory than its limit (exit code {code}){restarts}{said}"
    reason = f" ({ended.reason})" if ended.reason not in ("", "Error") else ""
    again = container.state.waiting and container.state.waiting.reason == "CrashLoopBackOff"
    word = "CrashLoopBackOff" if again or container.restart_count else "Crashed"
    return f"{word}: {name} ended with exit code {ended.exit_code}{reason}{restarts}{said}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
