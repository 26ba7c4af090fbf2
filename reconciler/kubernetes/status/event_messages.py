"""Messages of Kubernetes Events: one for each transition, wake, and problem. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.core.record import State, Transition
from reconciler.kubernetes.types.objects import ObjectRef, micro_time

EVENTS = "events.k8s.io/v1"
REPORTER = "zenvoy.dev/reconciler"
MAX_NAME_LENGTH = 200
"""Number of characters of an object's name in the names of its Events."""
MAX_NOTE_BYTES = 1024
"""The API server rejects longer notes."""

TRANSITION_REASONS = frozenset({"WakeRequested", "WakeStalled", "EndpointsLost", *State} - {State.Waking})
"""Reasons of `transition_message`."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """Reason, note, and action of an Event."""

    reason: str
    text: str
    action: str
    """The action that zenvoy takes, in one word."""
    warning: bool = False
    like_others: bool = False
    """True if an Event with the same reason is a repetition even if its text differs."""


def transition_message(transition: Transition, peer: str | None = None, envoy: str | None = None) -> EventMessage:
    """Return the message of a transition; `peer` (`ip:port`) and `envoy` are the waiting client and its Envoy."""
    target, text = transition.target, transition.reason
    match target:
        case State.Waking if transition.source is target:
            return EventMessage("WakeStalled", text, target, warning=True)
        case State.Waking if transition.event == "EndpointsLost":
            text = f"{text}; holding connections until an endpoint is ready"
            return EventMessage("EndpointsLost", text, target, warning=True)
        case State.Waking:
            return EventMessage("WakeRequested", text + _who(peer, envoy), target)
    return EventMessage(target, text, target, like_others=True)


def wake_message(
    total: float | None, parts: Mapping[str, float], peer: str | None = None, early: bool = False
) -> EventMessage:
    """Return the message of a finished wake; `total` and `parts` are seconds.

    `early` is true if Kubernetes has not called the pod ready yet.
    """
    outcome = "awake" if total is None else f"awake after {_seconds(total)}"
    listed = ", ".join(f"{_words(name)} {_seconds(seconds)}" for name, seconds in parts.items())
    before = "; Kubernetes does not call the pod ready yet" if early else ""
    return EventMessage("Woken", outcome + _who(peer, None) + (f": {listed}" if listed else "") + before, State.Active)


def deletion_message(done: str, failed: bool) -> EventMessage:
    """Return the message of a deletion; `done` describes the result for the replicas."""
    return EventMessage("RestoreFailed" if failed else "Restored", done, "Restoring", warning=failed)


def event_name(about: str, nanoseconds: int) -> str:
    """Return a name of an Event: the object's name and a timestamp, as other controllers use."""
    return f"{about[:MAX_NAME_LENGTH].rstrip('.-')}.{nanoseconds:x}"


def event_body(regarding: ObjectRef, note: EventMessage, name: str, at: float, instance: str) -> dict[str, Any]:
    """Return the Event of this name; `at` is in seconds since the epoch, and `instance` reports it."""
    return {
        "apiVersion": EVENTS,
        "kind": "Event",
        "metadata": {"name": name, "namespace": regarding.namespace},
        "eventTime": micro_time(at),
        "type": "Warning" if note.warning else "Normal",
        "reason": note.reason,
        "action": note.action,
        "note": shorten(note.text),
        "regarding": msgspec.to_builtins(regarding),
        "reportingController": REPORTER,
        "reportingInstance": instance,
    }


def shorten(text: str) -> str:
    """Shorten a note to the length that the API server accepts."""
    encoded = text.encode()
    if len(encoded) <= MAX_NOTE_BYTES:
        return text
    return encoded[: MAX_NOTE_BYTES - 3].decode(errors="ignore") + "…"


def _who(peer: str | None, envoy: str | None) -> str:
    first = f", first client {peer}" if peer else ""
    return first + (f" through Envoy {envoy}" if envoy else "")


def _words(name: str) -> str:
    """Return `firstByte` as `first byte`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
