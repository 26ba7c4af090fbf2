"""Many ScaledServices that name one captured Service, without an API server."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

from reconciler.core.reasons import Blocker, Reason
from reconciler.kubernetes.capture.controller import CaptureController
from reconciler.kubernetes.capture.observer import CaptureSources
from reconciler.kubernetes.config.capture import CaptureStatus
from reconciler.kubernetes.types.scaled_service import ScaledService
from tests.reconciler.kubernetes.objects import WEB, scaled, service

PORTS = range(12000, 12010)


class Scene:
    """A controller, and the objects that informers have."""

    def __init__(self) -> None:
        self.users: dict[str, set[str]] = {}
        self.scaled: dict[str, ScaledService] = {}
        self.services = {"shop/web": service(f"{{clusterIP: 10.96.0.1, {WEB}}}")}
        provider: Any = SimpleNamespace(
            users=lambda key: self.users.get(key, ()),
            scaled_services=SimpleNamespace(items=self.scaled),
            services=SimpleNamespace(items=self.services),
            synced=True,
        )
        slices: Any = SimpleNamespace(listeners=[], slices=lambda key: [], synced=True)
        sources = CaptureSources(provider, slices, None, PORTS)
        api: Any = None
        self.reports = Counter[str]()
        self.statuses: dict[str, CaptureStatus] = {}
        self.blockers: dict[str, Blocker | None] = {}
        self.controller = CaptureController(api, sources, lambda: True, self._reported, self.blockers.__setitem__)
        self.controller.configure({})

    def _reported(self, name: str, status: CaptureStatus) -> None:
        self.reports[name] += 1
        self.statuses[name] = status

    def see(self, name: str) -> None:
        """Let the informer report a ScaledService of the Service."""
        item = scaled("{service: web, capture: proxy}", name, created=len(self.scaled) % 60)
        self.scaled[item.metadata.key] = item
        self.users.setdefault("shop/web", set()).add(item.metadata.key)
        self.controller.saw(item.metadata.key, item)


async def test_capture_of_many_scaled_services_is_reported_once_each() -> None:
    """The number of reports would grow with the square of the number of the ScaledServices that name a Service."""
    scene = Scene()
    for number in range(50):
        scene.see(f"web-{number}")
    await asyncio.sleep(0)
    assert scene.reports == Counter(scene.scaled.keys())
    reasons = [status.reason for status in scene.statuses.values()]
    assert reasons.count(Reason.CAPTURE_TAKEN) == 49
    assert {blocker.code for blocker in scene.blockers.values() if blocker} == {Reason.BYPASSED}


async def test_capture_assigns_a_port_to_the_oldest_scaled_service() -> None:
    scene = Scene()
    for name in ("first", "second"):
        scene.see(name)
    await asyncio.sleep(0)
    assert {name: status.port for name, status in scene.statuses.items()} == {"shop/first": 12000, "shop/second": 0}
