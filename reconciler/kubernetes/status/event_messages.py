"""What people are told in Kubernetes' Events: one note for each transition, wake and mistake. Pure.

Counterparts: `event_recorder.py`, which writes them, and `reconciler.ports.transitions`, which brings them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.record import State
from reconciler.ports.transitions import Transition

LONGEST_BYTES = 1024
"""Of a note; the API server refuses longer ones."""

OF_TRANSITIONS = frozenset({"WakeRequested", "WakeStalled", "EndpointsLost", *State} - {State.Waking})
"""Reasons that `transition_message` gives."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """One Event's words."""

    reason: str
    text: str
    action: str
    """What zenvoy does about it, in one word."""
    warning: bool = False
    like_others: bool = False
    """Whether another of the same reason counts as a repeat though its text differs."""


def transition_message(transition: Transition, peer: str | None = None, envoy: str | None = None) -> EventMessage:
    """`peer` is who waits (`ip:port`) and `envoy` through which Envoy, where they are known."""
    target, text = transition.target, transition.reason
    match target:
        case State.Waking if transition.source is target:
            return EventMessage("WakeStalled", text, target, warning=True)
        case State.Waking if transition.event == "EndpointsLost":
            text = f"{text}; connections are held until it is back"
            return EventMessage("EndpointsLost", text, target, warning=True)
        case State.Waking:
            return EventMessage("WakeRequested", text + _who(peer, envoy), target)
    return EventMessage(target, text, target, like_others=True)


def wake_message(total: float | None, parts: Mapping[str, float], peer: str | None = None) -> EventMessage:
    """`total` and `parts` are seconds; the parts by name, in order."""
    begin = "it is awake" if total is None else f"it took {_seconds(total)}"
    listed = ", ".join(f"{_words(name)} {_seconds(seconds)}" for name, seconds in parts.items())
    return EventMessage("Woken", begin + _who(peer, None) + (f": {listed}" if listed else ""), State.Active)


def problem_message(reason: str, text: str) -> EventMessage:
    """A mistake in what was asked."""
    return EventMessage(reason, text, "Configuring", warning=True)


def deletion_message(done: str, failed: bool) -> EventMessage:
    """A ScaledService is deleted; `done` says what became of its replicas."""
    return EventMessage("RestoreFailed" if failed else "Restored", done, "Restoring", warning=failed)


def shorten(text: str) -> str:
    """At most as long as the API server takes it."""
    encoded = text.encode()
    if len(encoded) <= LONGEST_BYTES:
        return text
    return encoded[: LONGEST_BYTES - 3].decode(errors="ignore") + "…"


def _who(peer: str | None, envoy: str | None) -> str:
    first = f", first {peer}" if peer else ""
    return first + (f" through Envoy {envoy}" if envoy else "")


def _words(name: str) -> str:
    """`firstByte` as `first byte`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
