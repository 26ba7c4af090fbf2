"""Notification of transitions and wakes: log lines, metrics, and further listeners.

Nothing here decides anything, and no client waits for a notification: it is sent after the effects of a transition.
"""

from __future__ import annotations

import asyncio

import structlog

from reconciler.core.record import Transition
from reconciler.engine.wake import TransitionListener, Wake
from reconciler.metrics import Metrics


class TransitionNotifier:
    """Reports each transition and wake once."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._listeners: list[TransitionListener] = []
        self._log = structlog.get_logger().bind()  # bound once: a wake writes four lines, and binding costs as much

    def add(self, listener: TransitionListener) -> None:
        """Notify this listener, too."""
        self._listeners.append(listener)

    def saw(self, transition: Transition) -> None:
        """Report a transition in the next turn of the loop, after its effects."""
        asyncio.get_running_loop().call_soon(self._notify, transition)

    def woke(self, service: str, wake: Wake) -> None:
        """Report a wake that is over."""
        total, parts = wake.total(), wake.parts()
        self._metrics.woke(service, total, parts)
        self._log.info("woken", service=service, total=total, parts=parts, peer=wake.peer)
        for listener in self._listeners:
            listener.woke(service, wake)

    def _notify(self, transition: Transition) -> None:
        self._metrics.saw(transition)
        self._log.info(
            "transition",
            service=transition.service,
            source=transition.source.value,
            target=transition.target.value,
            reason=transition.reason,
            cause=transition.event,
            **({"reference": transition.reference} if transition.reference else {}),
        )
        for listener in self._listeners:
            listener.saw(transition)
