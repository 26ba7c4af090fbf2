"""The informer with a real API server that is stopped, frozen and started."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.kubernetes.client import informer as module
from reconciler.kubernetes.client.api import Api, connect
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.objects import Object, decoder, path
from tests.cluster.harness import Cluster


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(240):
        while not holds():
            await asyncio.sleep(0.02)


@dataclass
class Copy:
    """An informer of a namespace's ConfigMaps, without the one that every namespace has."""

    api: Api
    where: str
    reported: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """Methods of the calls to the API server."""
    informer: Informer[Object] = field(init=False)

    def __post_init__(self) -> None:
        query = {"fieldSelector": "metadata.name!=kube-root-ca.crt"}
        self.informer = Informer(self.api, self.where, decoder(Object), self._changed, query)
        self.api.called = lambda method, _: self.calls.append(method)

    def _changed(self, key: str, item: Object | None) -> None:
        self.reported.append(f"{'+' if item else '-'}{key.partition('/')[2]}")

    async def make(self, name: str) -> None:
        await self.api.call("POST", self.where, {"metadata": {"name": name}})

    async def delete(self, name: str) -> None:
        await self.api.call("DELETE", f"{self.where}/{name}")


@pytest.fixture
def long_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no watch end by itself during a test."""
    monkeypatch.setattr(module, "WATCH_SECONDS", (3600, 3600))


@pytest.fixture
async def copy(api: Api, namespace: str) -> AsyncIterator[Copy]:
    copy = Copy(api, path("v1", "configmaps", namespace))
    await copy.make("a")
    task = asyncio.create_task(copy.informer.run())
    await until(lambda: copy.informer.synced)
    yield copy
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_informer_reports_added_changed_and_deleted(copy: Copy) -> None:
    await copy.make("b")
    await copy.delete("a")
    await until(lambda: copy.reported == ["+a", "+b", "-a"])
    assert copy.calls.count("GET") == 1, "one list"


async def test_informer_list_of_several_pages_is_complete(
    api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    copy = Copy(api, path("v1", "configmaps", namespace))
    for number in range(10):
        await copy.make(f"n{number}")
    task = asyncio.create_task(copy.informer.run())
    await until(lambda: copy.informer.synced)
    assert len(copy.informer.items) == 10
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_informer_api_server_restart_is_survived(copy: Copy, apiserver: Cluster) -> None:
    await copy.make("b")
    await until(lambda: "+b" in copy.reported)
    apiserver.stop_apiserver()
    await until(lambda: copy.informer.error)
    assert set(copy.informer.items) == {f"{copy.where.split('/')[4]}/{name}" for name in "ab"}
    apiserver.start_apiserver()
    await copy.delete("a")
    await copy.make("c")
    await until(lambda: copy.informer.error is None and "-a" in copy.reported and "+c" in copy.reported)
    assert [word for word in copy.reported if word.startswith("-")] == ["-a"]


async def test_informer_api_server_frozen_is_noticed(
    copy: Copy, apiserver: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", (1, 1))
    monkeypatch.setattr(module, "WATCH_GRACE_SECONDS", 1.0)
    apiserver.stop_apiserver()
    await until(lambda: copy.informer.error)
    apiserver.start_apiserver()
    await until(lambda: copy.informer.error is None)
    apiserver.freeze("apiserver")
    try:
        await until(lambda: copy.informer.error)
        assert len(copy.informer.items) == 1
    finally:
        apiserver.thaw("apiserver")
    await copy.make("b")
    await until(lambda: "+b" in copy.reported)
    assert "-a" not in copy.reported


@pytest.mark.root
@pytest.mark.usefixtures("long_watches")
async def test_informer_vanished_connection_is_noticed(copy: Copy, apiserver: Cluster) -> None:
    """By its keepalives."""
    table = f"zenvoy_test_{secrets.token_hex(4)}"
    port = copy.api.server.rpartition(":")[2]
    lost = f"""table inet {table} {{
        chain in {{
            type filter hook input priority 0
            tcp sport {port} drop
        }}
    }}"""
    apiserver.run("nft", "-f", "-", given=lost)
    try:
        await until(lambda: copy.informer.error)
    finally:
        apiserver.run("nft", "delete", "table", "inet", table)
    await copy.make("b")
    await until(lambda: "+b" in copy.reported and copy.informer.error is None)
    assert "-a" not in copy.reported


async def test_informer_expired_version_is_listed_again(api: Api, namespace: str) -> None:
    copy = Copy(api, path("v1", "configmaps", namespace))
    copy.informer._version = "1"
    await copy.make("a")
    task = asyncio.create_task(copy.informer.run())
    await until(lambda: copy.informer.synced)
    assert "+a" in copy.reported
    await copy.make("b")
    await until(lambda: "+b" in copy.reported)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_informer_missing_kind_is_waited_for(api: Api) -> None:
    group = "informer.tests.zenvoy.dev"
    seen: list[str] = []
    informer = Informer(api, path(f"{group}/v1", "things"), decoder(Object), lambda key, _: seen.append(key))
    task = asyncio.create_task(informer.run())
    await until(lambda: informer.error and "404" in str(informer.error))
    crds = path("apiextensions.k8s.io/v1", "customresourcedefinitions")
    schema = {"openAPIV3Schema": {"type": "object"}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"kind": "Thing", "plural": "things"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    await api.call("POST", crds, {"metadata": {"name": f"things.{group}"}, "spec": spec})
    try:
        await until(lambda: informer.synced and informer.error is None)
        assert not seen
    finally:
        await api.call("DELETE", f"{crds}/things.{group}")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_informer_forbidden_list_is_reported(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    account = path("v1", "serviceaccounts", namespace)
    admin = await connect(control_plane.kubeconfig)
    await admin.call("POST", account, {"metadata": {"name": "without-rights"}})
    said = await admin.call("POST", f"{account}/without-rights/token", {"kind": "TokenRequest", "spec": {}})
    await admin.close()
    kubeconfig = json.loads(control_plane.kubectl("config", "view", "--raw", "-o", "json"))
    for user in kubeconfig["users"]:
        user["user"] = {"token": json.loads(said)["status"]["token"]}
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    api = await connect(tmp_path / "kubeconfig")
    copy = Copy(api, path("v1", "configmaps", namespace))
    task = asyncio.create_task(copy.informer.run())
    await until(lambda: copy.informer.error and "403 Forbidden" in str(copy.informer.error))
    assert not copy.informer.synced
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await api.close()
