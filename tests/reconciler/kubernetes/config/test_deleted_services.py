"""Configurations of ScaledServices whose Service was deleted."""

from __future__ import annotations

import asyncio

from reconciler.core.spec import Spec
from reconciler.kubernetes.config.provider import DeletedServices
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import ServicePort
from reconciler.kubernetes.types.objects import Target

CONFIG = ServiceConfig(
    Spec(name="shop/web", hold_timeout=40.0),
    Target("apps/v1", "Deployment", "web", "shop"),
    "web",
    ServicePort("", 80),
    0.0,
    "uid",
    1,
)


async def test_deleted_service_shortens_waits_once_it_is_gone_for_good() -> None:
    gone: asyncio.Queue[str] = asyncio.Queue()
    services = DeletedServices(gone.put_nowait, seconds=0.01)
    first = services.apply("shop/web", CONFIG)
    assert (first.has_service, first.spec.hold_timeout) == (False, 40.0)
    assert await asyncio.wait_for(gone.get(), 60) == "shop/web"
    assert services.apply("shop/web", first).spec.hold_timeout == 0.01
    services.forget("shop/web")
    assert services.apply("shop/web", CONFIG).spec.hold_timeout == 40.0, "it was created again, and deleted again"
    services.forget("shop/web")


async def test_deleted_service_that_is_back_reports_nothing() -> None:
    gone: asyncio.Queue[str] = asyncio.Queue()
    services = DeletedServices(gone.put_nowait, seconds=0.01)
    services.apply("shop/web", CONFIG)
    services.forget("shop/web")
    services.apply("shop/other", CONFIG)
    assert await asyncio.wait_for(gone.get(), 60) == "shop/other"
    assert gone.empty()
