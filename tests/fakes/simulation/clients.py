"""Clients of the simulated service."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "web"
"""Name of the simulated service."""
INSTANT = 0.001
"""Offset that keeps arrivals of clients apart from the times of samples."""
ROLLOUT = "template rollout"
NOT_CONFIGURED = "not configured"
"""The end of a client that arrives after the removal of the service, or waits for one that could not become ready."""
EXCUSED = (
    "crash",
    "another controller",
    "Envoy died",
    "holder died",
    "hold timed out",
    "gave up",
    ROLLOUT,
    NOT_CONFIGURED,
)
"""Ends of connections that neither sleep nor a change of the configuration caused."""


@dataclass
class Client:
    """A connection with one request."""

    envoy: str
    arrived: float
    pod: str | None = None
    """The pod that serves it; None while it is held."""
    direct: bool = False
    ended: float | None = None
    end: str | None = None
    """`served`, or the reason for another end."""
