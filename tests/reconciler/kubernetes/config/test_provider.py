"""ScaledServices and Services joined, as they come, change and go; the API server only lists and watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import yaml

from reconciler.kubernetes.config.provider import PAUSES, KubernetesProvider, Problems, ServiceConfigs
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.scaled_service import FINALIZER
from tests.fakes.api_server import ApiServer, serving

HTTP = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}
LABEL = {"zenvoy.dev/enabled": "true"}
DELETED: dict[str, Any] = {"deletionTimestamp": "2026-11-23T11:00:00Z"}


@dataclass
class Shop:
    """A catalogue that runs, as a follower, and what it published last."""

    scaled: ApiServer = field(default_factory=ApiServer)
    services: ApiServer = field(default_factory=ApiServer)
    namespaces: ApiServer = field(default_factory=ApiServer)
    reported: list[tuple[ServiceConfigs, Problems]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    busy_until: list[tuple[str, str | None]] = field(default_factory=list)
    takes_seconds: float = 0.0
    """Seconds for which the callback is busy."""
    busy: list[tuple[float, float]] = field(default_factory=list)

    def hear(self, entries: ServiceConfigs, problems: Problems) -> None:
        began = time.monotonic()
        self.reported.append((dict(entries), dict(problems)))
        time.sleep(self.takes_seconds)
        self.busy.append((began, time.monotonic()))

    def scale(self, name: str, spec: str = "", age: int = 0, **metadata: Any) -> None:
        """Make or change a ScaledService; `spec` is YAML."""
        made = f"2026-11-23T10:00:{age:02}Z"
        meta = {"uid": f"uid-{name}", "generation": 1, "creationTimestamp": made, **metadata}
        self.scaled.put(name, metadata=meta, spec=yaml.safe_load(spec) or {})

    def serve(self, name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> None:
        self.services.put(name, metadata={"uid": f"uid-{name}", **metadata}, spec=spec or HTTP)

    @property
    def entries(self) -> ServiceConfigs:
        return self.reported[-1][0] if self.reported else {}

    @property
    def problems(self) -> dict[str, list[str]]:
        """Their reasons, and where."""
        found = self.reported[-1][1] if self.reported else {}
        return {key: [f"{one.reason} {one.field}" for one in problems] for key, problems in found.items()}

    def entry(self, name: str) -> ServiceConfig:
        return self.entries[f"shop/{name}"]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """With one Service, `web`, and nothing scaled yet. The parameter: for how long what is gone may be made again."""
    shop = Shop()
    shop.serve("web")
    async with serving(shop.scaled, services=shop.services, namespaces=shop.namespaces) as api:
        catalogue = KubernetesProvider(
            api,
            lambda: False,
            shop.hear,
            lambda key, item: shop.seen.append(f"{'+' if item else '-'}{key}"),
            lambda key, until: shop.busy_until.append((key, until.blocker.message if until else None)),
            recreate_seconds=getattr(request, "param", 3600.0),
            gone_seconds=getattr(request, "param", 3600.0),
        )
        task = asyncio.create_task(catalogue.run())
        await until(lambda: shop.reported and shop.scaled.open and shop.services.open)
        yield shop
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_provider_empty_cluster_is_reported(shop: Shop) -> None:
    assert shop.reported == [({}, {})]


async def test_provider_many_changes_leave_time_for_others(shop: Shop) -> None:
    shop.takes_seconds = 0.01

    def are_seen(count: int) -> bool:
        return len(shop.seen) == count

    for number in range(30):
        shop.serve(f"web-{number}")
        shop.scale(f"web-{number}")
        await until(partial(are_seen, number + 1))
    await until(lambda: len(shop.entries) == 30)
    for (began, ended), (next_began, _) in zip(shop.busy[1:], shop.busy[2:], strict=False):
        assert next_began - ended >= PAUSES * (ended - began)


async def test_provider_changed_service_is_published_once(shop: Shop) -> None:
    shop.serve("web")
    for number in range(20):
        shop.scale(f"web-{number}", f"{{service: web, hosts: [web-{number}.example.com]}}")
    await until(lambda: len(shop.entries) == 20)
    published = len(shop.reported)
    shop.serve("web", {**HTTP, "ports": [{"name": "http", "port": 81}]})
    await until(lambda: {entry.port.port for entry in shop.entries.values()} == {81})
    assert len(shop.reported) == published + 1


async def test_provider_reports_added_changed_and_deleted(shop: Shop) -> None:
    shop.scale("web")
    await until(lambda: shop.entries)
    assert shop.entry("web").port.port == 80
    shop.scale("web", "idleAfter: 1m")
    await until(lambda: shop.entry("web").spec.idle_after == 60)
    shop.scaled.delete("web")
    await until(lambda: not shop.entries)
    assert shop.seen == ["+shop/web", "+shop/web", "-shop/web"]


async def test_provider_simultaneous_changes_are_reported_once(shop: Shop) -> None:
    for number in range(50):
        shop.scale(f"s{number}", "service: web")
    await until(lambda: len(shop.problems) == 49)
    assert len(shop.reported) < 10


async def test_provider_irrelevant_change_is_not_reported(shop: Shop) -> None:
    shop.scale("web")
    await until(lambda: shop.entries)
    reported = len(shop.reported)
    shop.scale("web", annotations={"zenvoy.dev/command": "wake@now"})
    shop.serve("web", {**HTTP, "clusterIP": "10.0.0.1"})
    await until(lambda: len(shop.seen) == 2)
    shop.scale("other", "service: none")
    await until(lambda: shop.problems)
    assert len(shop.reported) == reported + 1


async def test_provider_reports_times_of_busy_applications(shop: Shop) -> None:
    early, late = "2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z"
    shop.scale("web", annotations={"zenvoy.dev/busy-until": early})
    await until(lambda: ("shop/web", f"zenvoy.dev/busy-until: {early}") in shop.busy_until)
    shop.serve("web", annotations={"zenvoy.dev/busy-until": late})
    await until(lambda: shop.busy_until[-1] == ("shop/web", f"zenvoy.dev/busy-until: {late}"))
    shop.serve("web")
    await until(lambda: shop.busy_until[-1] == ("shop/web", f"zenvoy.dev/busy-until: {early}"))
    shop.scaled.delete("web")
    await until(lambda: shop.busy_until[-1] == ("shop/web", None))


async def test_provider_late_service_takes_effect(shop: Shop) -> None:
    shop.scale("db", "{protocol: tcp, listen: 5432}")
    await until(lambda: shop.problems == {"shop/db": ["ServiceNotFound spec.service"]})
    assert not shop.entries
    shop.serve("db")
    await until(lambda: shop.entries and not shop.problems)
    assert shop.entry("db").spec.listen == "0.0.0.0:5432"


async def test_provider_deleted_service_keeps_last_config(shop: Shop) -> None:
    shop.scale("web")
    await until(lambda: shop.entries)
    before = shop.entry("web")
    shop.services.delete("web")
    await until(lambda: shop.problems == {"shop/web": ["ServiceNotFound spec.service"]})
    assert shop.entry("web") == replace(before, has_service=False)
    shop.serve("web", {**HTTP, "ports": [{"name": "http", "port": 8080}]})
    await until(lambda: not shop.problems)
    assert shop.entry("web").port.port == 8080


@pytest.mark.parametrize("deletion", [{}, {"finalizers": [FINALIZER], **DELETED}], ids=["kept", "deleted"])
@pytest.mark.parametrize("shop", [0.2], indirect=True)
async def test_provider_service_gone_for_good_ends_waits(shop: Shop, deletion: dict[str, Any]) -> None:
    shop.scale("web", "holdTimeout: 40s", finalizers=[FINALIZER])
    await until(lambda: shop.entries)
    shop.scale("web", "holdTimeout: 40s", **deletion)
    shop.services.delete("web")
    await until(lambda: shop.entry("web").spec.hold_timeout == 0.2)
    assert not shop.entry("web").has_service
    shop.serve("web")
    await until(lambda: shop.entry("web").has_service)
    assert shop.entry("web").spec.hold_timeout == 40


async def test_provider_invalid_change_keeps_last_config(shop: Shop) -> None:
    shop.scale("web", "idleAfter: 1m")
    await until(lambda: shop.entries)
    shop.scale("web", "{idleAfter: 2m, port: nine, replicas: none}", generation=2)
    await until(lambda: shop.problems == {"shop/web": ["PortNotFound spec.port", "BadSpec spec.replicas"]})
    assert (shop.entry("web").spec.idle_after, shop.entry("web").generation) == (60, 1)
    shop.scale("web", "{idleAfter: 2m}", generation=3)
    await until(lambda: not shop.problems)
    assert (shop.entry("web").spec.idle_after, shop.entry("web").generation) == (120, 3)


async def test_provider_pause_applies_despite_problems(shop: Shop) -> None:
    shop.scale("web")
    await until(lambda: shop.entries)
    shop.scale("web", "{port: nine, paused: true}")
    await until(lambda: shop.problems)
    assert shop.entry("web").spec.paused


async def test_provider_recreated_object_inherits_nothing(shop: Shop) -> None:
    shop.scale("web")
    await until(lambda: shop.entries)
    shop.scale("web", "port: nine", uid="another")
    await until(lambda: shop.problems)
    assert not shop.entries


async def test_provider_deletion_stays_until_finalizer_is_removed(shop: Shop) -> None:
    shop.scale("web", finalizers=["other/one", FINALIZER])
    await until(lambda: shop.entries)
    before = shop.entry("web")
    shop.scale("web", finalizers=["other/one", FINALIZER], **DELETED)
    await until(lambda: shop.entry("web").spec.departing)
    assert shop.entry("web") == replace(before, spec=replace(before.spec, departing=True))
    shop.scale("web", finalizers=["other/one"], **DELETED)
    await until(lambda: not shop.entries)
    assert not shop.problems


async def test_provider_deletion_reports_no_problems(shop: Shop) -> None:
    shop.scale("web", finalizers=[FINALIZER])
    await until(lambda: shop.entries)
    shop.scale("web", finalizers=[FINALIZER], **DELETED)
    shop.services.delete("web")
    shop.scale("web", "port: nine", finalizers=[FINALIZER], **DELETED)
    await until(lambda: shop.entry("web").spec.departing and len(shop.seen) == 3)
    assert not shop.problems
    assert shop.entry("web").port.port == 80


async def test_provider_recreated_object_is_not_departing(shop: Shop) -> None:
    shop.scale("web", finalizers=[FINALIZER], **DELETED)
    await until(lambda: shop.entries and shop.entry("web").spec.departing)
    shop.scaled.delete("web")
    shop.scale("web", uid="another")
    await until(lambda: shop.entries and not shop.entry("web").spec.departing)


async def test_provider_recreation_keeps_config_meanwhile(shop: Shop) -> None:
    shop.serve("web", labels=LABEL)
    shop.scale("web", "idleAfter: 1m", finalizers=[FINALIZER], **DELETED)
    await until(lambda: shop.entries)
    reported = len(shop.reported)
    shop.scaled.delete("web")
    await until(lambda: shop.seen[-1] == "-shop/web")
    shop.scale("web", "idleAfter: 2m", uid="another")
    await until(lambda: shop.entry("web").spec.idle_after == 120)
    assert not shop.entry("web").spec.departing
    assert all(entries for entries, _ in shop.reported[reported:])


@pytest.mark.parametrize("shop", [0.2], indirect=True)
async def test_provider_missing_recreation_ends_config(shop: Shop) -> None:
    shop.serve("web", labels=LABEL)
    shop.scale("web")
    await until(lambda: shop.entries)
    shop.scaled.delete("web")
    await until(lambda: not shop.entries)


@pytest.mark.parametrize("shop", [3600.0], indirect=True)
async def test_provider_deleted_without_label_ends_at_once(shop: Shop) -> None:
    shop.scale("web")
    await until(lambda: shop.entries)
    shop.scaled.delete("web")
    await until(lambda: not shop.entries)


async def test_provider_deletion_keeps_host_from_successor(shop: Shop) -> None:
    shop.scale("old", "{service: web, protocol: tcp, listen: 5432}", age=1, finalizers=[FINALIZER])
    await until(lambda: shop.entries)
    shop.scale("old", "{service: web, protocol: tcp, listen: 5432}", age=1, finalizers=[FINALIZER], **DELETED)
    shop.scale("new", "{service: web, protocol: tcp, listen: 5432}", age=2)
    await until(lambda: shop.problems == {"shop/new": ["ListenTaken spec.listen"]})
    assert list(shop.entries) == ["shop/old"]
    shop.scaled.delete("old")
    await until(lambda: list(shop.entries) == ["shop/new"] and not shop.problems)


async def test_provider_taken_port_keeps_previous_port(shop: Shop) -> None:
    shop.scale("old", "{service: web, protocol: tcp, listen: 5432}", age=1)
    shop.scale("young", "{service: web, protocol: tcp, listen: 5433}", age=2)
    await until(lambda: len(shop.entries) == 2)
    shop.scale("young", "{service: web, protocol: tcp, listen: 5432}", age=2)
    await until(lambda: shop.problems == {"shop/young": ["ListenTaken spec.listen"]})
    assert shop.entry("young").spec.listen == "0.0.0.0:5433"
    shop.scaled.delete("old")
    await until(lambda: not shop.problems)
    assert shop.entry("young").spec.listen == "0.0.0.0:5432"


async def test_provider_port_taken_by_older_is_lost(shop: Shop) -> None:
    shop.scale("old", "{service: web, protocol: tcp, listen: 5432}", age=1)
    shop.scale("young", "{service: web, protocol: tcp, listen: 5433}", age=2)
    await until(lambda: len(shop.entries) == 2)
    shop.scale("old", "{service: web, protocol: tcp, listen: 5433}", age=1)
    await until(lambda: shop.problems == {"shop/young": ["ListenTaken spec.listen"]})
    assert list(shop.entries) == ["shop/old"]


async def test_provider_follower_reports_bad_annotations(shop: Shop) -> None:
    annotated = {"zenvoy.dev/idle-after": "5", "zenvoy.dev/prt": "80"}
    shop.serve("web", labels={"zenvoy.dev/enabled": "true"}, annotations=annotated)
    await until(lambda: shop.problems)
    assert shop.problems == {"shop/web": ["BadAnnotation zenvoy.dev/idle-after", "BadAnnotation zenvoy.dev/prt"]}
    assert {problem.on for problem in shop.reported[-1][1]["shop/web"]} == {"Service"}
    shop.serve("web", labels={"zenvoy.dev/enabled": "true"})
    await until(lambda: not shop.problems)


async def test_provider_label_with_existing_object_is_harmless(shop: Shop) -> None:
    shop.scale("web")
    shop.serve("web", labels={"zenvoy.dev/enabled": "true"})
    await until(lambda: shop.entries and shop.problems)
    (problem,) = shop.reported[-1][1]["shop/web"]
    assert problem.harmless
    assert str(problem) == (
        "zenvoy.dev/enabled: ScaledService shop/web exists and was not created from this label, so it is not changed; "
        "remove the label from the Service, or delete the ScaledService"
    )


async def test_provider_before_sync_reports_nothing() -> None:
    shop = Shop()
    shop.scale("web")
    shop.serve("web")
    shop.services.faults.refuse = (500, "InternalError")
    async with serving(shop.scaled, services=shop.services, namespaces=shop.namespaces) as api:
        catalogue = KubernetesProvider(api, lambda: False, lambda entries, _: shop.reported.append((entries, {})))
        codes: list[str] = []
        api.called = lambda _, code: codes.append(code)
        task = asyncio.create_task(catalogue.run())
        await until(lambda: catalogue.scaled_services.synced and "500" in codes)
        assert not shop.reported
        shop.services.faults.refuse = None
        await until(lambda: shop.reported)
        assert list(shop.entries) == ["shop/web"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_provider_new_namespace_gets_its_host(shop: Shop) -> None:
    shop.namespaces.put("shop", "")
    shop.scale("web", "hosts: [api.payments, api.payments.svc]")
    await until(lambda: shop.problems)
    assert shop.problems == {"shop/web": ["HostNotAllowed spec.hosts"]}
    assert shop.entry("web").spec.hosts[-1] == "api.payments"
    shop.namespaces.put("payments", "")
    await until(lambda: "api.payments" not in shop.entry("web").spec.hosts)
    assert len(shop.problems["shop/web"]) == 2
    shop.namespaces.put("payments", "", metadata={"labels": {"a": "b"}})
    shop.namespaces.delete("payments", "")
    await until(lambda: "api.payments" in shop.entry("web").spec.hosts)
