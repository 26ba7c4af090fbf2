"""ScaledServices in effect whose Service was deleted.

A tool that replaces a Service creates it again at once, so clients wait for it at first. Once it is gone for good, no
client waits longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from reconciler.kubernetes.config.service_config import ServiceConfig

GONE_SECONDS = 5.0
"""Time after which a deleted Service is considered gone for good."""


class DeletedServices:
    """The ScaledServices by key, with the time that is left to create their Service again."""

    def __init__(self, on_gone: Callable[[str], None], seconds: float = GONE_SECONDS) -> None:
        """Track nothing yet; `on_gone` is called when the configuration of a key changes because time has passed."""
        self._on_gone, self._seconds = on_gone, seconds
        self._timers: dict[str, asyncio.TimerHandle | None] = {}
        """None once the Service is gone for good."""

    def apply(self, key: str, config: ServiceConfig) -> ServiceConfig:
        """Return the configuration of a ScaledService without its Service."""
        if key not in self._timers:
            self._timers[key] = asyncio.get_running_loop().call_later(self._seconds, self._expire, key)
        spec = config.spec
        if self._timers[key] is None:
            spec = replace(spec, hold_timeout=min(spec.hold_timeout, self._seconds))
        return replace(config, spec=spec, has_service=False)

    def forget(self, key: str) -> None:
        """Forget a ScaledService that has its Service, or is gone itself."""
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def _expire(self, key: str) -> None:
        self._timers[key] = None
        self._on_gone(key)
