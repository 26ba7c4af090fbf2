"""Services that work without a client, with a real API server: the annotation, and questions to pods."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from reconciler.core.busy import BusyUntil
from reconciler.core.reasons import Reason
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.config.provider import KubernetesProvider
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, BUSY_UNTIL_ANNOTATION, KIND, PLURAL, BusyCheck
from tests.cluster import crd
from tests.cluster.stage import Stage, entry, own_address
from tests.cluster.written import GENEROUS_SECONDS, until
from tests.reconciler.test_http_get import answering

HERE = own_address()
HTTP = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}
TIMES = ("2126-11-23T10:00:00Z", "2126-11-23T11:00:00Z")


async def annotate(api: Api, where: str, text: str | None) -> None:
    await api.patch(where, {"metadata": {"annotations": {BUSY_UNTIL_ANNOTATION: text}}}, MERGE_PATCH)


async def test_annotation_of_either_object_is_observed(api: Api, namespace: str) -> None:
    await crd.install(api)
    service, item = path("v1", "services", namespace, "web"), path(API_VERSION, PLURAL, namespace, "web")
    seen: dict[str, BusyUntil | None] = {}
    reports: list[Any] = []
    provider = KubernetesProvider(
        api,
        lambda: True,
        lambda entries, problems: reports.append(entries),
        on_busy_until=seen.__setitem__,
        namespaces=[namespace],
    )
    task = asyncio.create_task(provider.run())
    await api.call("POST", path("v1", "services", namespace), {"metadata": {"name": "web"}, "spec": HTTP})
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "web"}}
    await api.call("POST", path(API_VERSION, PLURAL, namespace), body)
    key = f"{namespace}/web"

    def message() -> str | None:
        found = seen.get(key)
        return found.blocker.message if found else None

    await until(lambda: bool(reports and key in reports[-1]))
    published = len(reports)

    def is_message(expected: str) -> bool:
        return message() == f"{BUSY_UNTIL_ANNOTATION}: {expected}"

    for where, text, expected in ((item, TIMES[0], TIMES[0]), (service, TIMES[1], TIMES[1]), (service, None, TIMES[0])):
        await annotate(api, where, text)
        await until(partial(is_message, expected))
    await annotate(api, item, None)
    await until(lambda: key in seen and seen[key] is None)
    assert len(reports) == published, "an annotation configures nothing again"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_pods_are_asked_at_their_own_addresses(stage: Stage) -> None:
    await stage.deploy("web", 1)
    pod = (await stage.pod("web"))["metadata"]
    at = path("v1", "pods", stage.namespace, pod["name"], "status")
    ref = {"kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
    ready = {"addresses": [HERE], "conditions": {"ready": True, "answering": True}, "targetRef": ref}
    stage.configure(replace(entry("web", stage.namespace), busy=BusyCheck("/busy")))

    async def answer() -> tuple[Reason | None, str]:
        blocker = await stage.backend.ask_busy(stage.named("web"))
        return (blocker.code, blocker.message) if blocker else (None, "")

    async def until_answer(expected: tuple[Reason | None, str]) -> None:
        """Ask until the answer is the expected one: on a machine that stops for a while, it may be late."""
        async with asyncio.timeout(GENEROUS_SECONDS):
            while await answer() != expected:
                await asyncio.sleep(0.02)

    async with answering(b"HTTP/1.1 204 x\r\n\r\n", HERE) as (port, asked):
        await stage.slice("web-a", "web", [ready], port)
        await stage.until("web", lambda running: running.endpoints)
        code, message = await answer()
        assert (code, "is not asked" in message, asked.requests) == (Reason.BUSY_CHECK_FAILED, True, [])
        status = {"phase": "Running", "podIP": HERE, "podIPs": [{"ip": HERE}]}
        await stage.api.patch(at, {"status": status}, MERGE_PATCH)
        await until_answer((None, ""))
    async with answering(b"HTTP/1.1 200 x\r\n\r\n", HERE) as (port, _):
        await stage.slice("web-a", "web", [ready], port)
        await stage.until("web", lambda running: running.endpoints == (f"{HERE}:{port}",))
        await until_answer((Reason.BUSY, f"GET /busy of pod {pod['name']} is answered with 200"))
