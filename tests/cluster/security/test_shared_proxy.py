"""A tenant's services and the parts that they share with others: hosts, ports, and listeners of a real Envoy.

The tenant has `edit` in one namespace; the controller has the chart's own account.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, ENABLED_LABEL, KIND, PLURAL
from tests.cluster.addresses import Addresses
from tests.cluster.chart import Chart
from tests.cluster.cli.parts import Objects
from tests.cluster.harness import Cluster
from tests.cluster.namespaces import new_namespace
from tests.cluster.rights import kubeconfig_of
from tests.cluster.security.tenant import Tenant, tenant
from tests.ports import free_port, free_ports
from tests.servers import Serve
from tests.xds.parts import echoes, envoy, http_get, pages, until_async, upstream
from tests.xds.test_envoy_protocols import line
from tests.xds.test_envoy_rejections import greeting

ACCOUNT = "zenvoy-reconciler"
PROGRAM = Path(sys.executable).parent / "zenvoy"
PATIENCE_SECONDS = 60.0


@dataclass
class Stage:
    """A controller with an Envoy, a tenant, and the namespace of another tenant."""

    api: Api
    tenant: Tenant
    victim: Objects
    http: int
    tls: int
    tcp: int
    """A port of the proxy that is the victim's, as the next one is."""
    addresses: Addresses
    stack: AsyncExitStack

    async def runs(self, objects: Objects, name: str, serve: Serve, port_name: str = "http") -> None:
        """Have a Deployment, its Service, and a pod that answers."""
        pod = await self.stack.enter_async_context(upstream(serve, host=self.addresses.add()))
        owner = Objects(self.api, objects.namespace)
        await owner.deployment(name)
        ports = [{"name": port_name, "port": pod.port}]
        service = {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": ports}}
        await objects.make("v1", "services", {"kind": "Service", **service})
        slice_ = {
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{**ports[0], "protocol": "TCP"}],
            "endpoints": [{"addresses": [pod.host], "conditions": {"ready": True}}],
        }
        await owner.make("discovery.k8s.io/v1", "endpointslices", slice_)

    async def label(self, objects: Objects, name: str, **annotations: str) -> None:
        notes = {f"zenvoy.dev/{key}": value for key, value in annotations.items()}
        meta = {"labels": {ENABLED_LABEL: "true"}, "annotations": notes}
        await objects.api.patch(path("v1", "services", objects.namespace, name), {"metadata": meta}, MERGE_PATCH)

    async def claims(self, objects: Objects, name: str, spec: Mapping[str, Any]) -> None:
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
        await objects.make(API_VERSION, PLURAL, body)

    async def refused(self, name: str, reason: str, of: Objects | None = None) -> str:
        """Wait until a ScaledService, by default the tenant's, is refused something; return the message."""

        async def said() -> str:
            # None: the controller has not made it of its Service yet.
            found = await (of or self.tenant.objects).find(name) or {}
            for one in found.get("status", {}).get("conditions", ()):
                if one["type"] == "Ready" and one["status"] == "False" and one["reason"] == reason:
                    return str(one["message"])
            return ""

        return await until_async(said, f"{reason} of {name}", PATIENCE_SECONDS)

    async def leads(self, host: str, body: str) -> None:
        async def answered() -> bool:
            return await http_get(self.http, host) == (200, f"{body} for {host}")

        await until_async(answered, f"{host} leads to {body}", PATIENCE_SECONDS)

    async def answers(self, port: int, text: str) -> None:
        async def answered() -> bool:
            return await line(port) == text

        await until_async(answered, f"port {port} answers {text!r}", PATIENCE_SECONDS)


@pytest.fixture
def addresses() -> Iterator[Addresses]:
    made = Addresses()
    yield made
    made.close()


@pytest.fixture
async def stage(
    control_plane: Cluster, api: Api, namespace: str, addresses: Addresses, tmp_path: Path
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        system = Chart(control_plane, await stack.enter_async_context(new_namespace(api, "other")), tmp_path)
        system.install()
        stack.callback(system.uninstall)
        victim = Objects(api, await stack.enter_async_context(new_namespace(api, "other")))
        attacker = await stack.enter_async_context(tenant(control_plane, api, namespace, tmp_path))
        grpc, http, tls, tcp = free_port(), free_port(), free_port(), free_ports(2, "0.0.0.0")
        ports = {"namespaces": [victim.namespace], "ports": [f"{tcp}-{tcp + 1}"]}
        policy = [{"namespaces": ["*"], "hosts": ["*"]}, ports]
        identity = kubeconfig_of(control_plane, system.namespace, ACCOUNT, tmp_path)
        command: list[str | Path] = [
            PROGRAM,
            "controller",
            "--pod-name=me",
            "--pod-ip=127.0.0.1",
            "--plaintext",
            "--log=json",
        ]
        command += [f"--grpc=127.0.0.1:{grpc}", f"--metrics=127.0.0.1:{free_port()}", f"--kubeconfig={identity}"]
        command += [f"--http-port={http}", f"--tls-port={tls}", f"--lease-namespace={system.namespace}"]
        command += [f"--host-policy={json.dumps(policy)}", "--lease-duration=4s"]
        log = stack.enter_context((tmp_path / "controller.log").open("wb"))
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        try:
            await stack.enter_async_context(envoy(tmp_path, grpc))
            yield Stage(api, attacker, victim, http, tls, tcp, addresses, stack)
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 240)
        for of in (namespace, victim.namespace):
            for item in json.loads(await api.get(path(API_VERSION, PLURAL, of)))["items"]:
                where = path(API_VERSION, PLURAL, of, item["metadata"]["name"])
                await api.patch(where, {"metadata": {"finalizers": None}}, MERGE_PATCH)


async def test_names_of_a_namespace_lead_to_its_own_services(stage: Stage) -> None:
    """The tenant is first, in a ScaledService, in an annotation and with a server name; the Services come later."""
    own, victim = stage.tenant.objects, stage.victim.namespace
    names = [f"api.{victim}", f"api.{victim}.svc", f"api.{victim}.svc.cluster.local"]
    await stage.runs(own, "thief", pages("thief"))
    await stage.claims(own, "thief", {"hosts": [*names, "api", "thief.example.com"]})
    await stage.runs(own, "labelled", pages("labelled"))
    await stage.label(own, "labelled", hosts=",".join([*names, "labelled.example.com"]))
    await stage.runs(own, "passing", echoes("thief"), "https")
    await stage.claims(own, "passing", {"hosts": [f"secure.{victim}", "passing.example.com"]})
    for name in ("thief", "labelled", "passing"):
        assert f"is a name of namespace {victim}" in await stage.refused(name, "HostNotAllowed")
    await stage.leads("thief.example.com", "thief")
    await stage.leads("labelled.example.com", "labelled")
    assert await until_async(lambda: greeting(stage.tls, "passing.example.com"), "its server name") == "thief"
    for host in [*names, f"API.{victim}", f"api.{victim}:80", f"api.{victim}.", "api"]:
        assert (await http_get(stage.http, host))[0] == 404, host
    with pytest.raises(ConnectionResetError):
        await greeting(stage.tls, f"secure.{victim}")

    await stage.runs(stage.victim, "api", pages("owner"))
    await stage.label(stage.victim, "api")
    await stage.runs(stage.victim, "secure", echoes("owner"), "https")
    await stage.label(stage.victim, "secure")
    for host in [*names, f"API.{victim}", f"api.{victim}:80"]:
        await stage.leads(host, "owner")

    async def greeted() -> bool:
        return await greeting(stage.tls, f"secure.{victim}") == "owner"

    await until_async(greeted, "the owner's server name", PATIENCE_SECONDS)
    await stage.leads("thief.example.com", "thief")


async def test_port_leads_to_the_namespace_that_may_have_it(stage: Stage) -> None:
    await stage.runs(stage.tenant.objects, "thief", echoes("thief"), "tcp")
    await stage.claims(stage.tenant.objects, "thief", {"protocol": "tcp", "listen": stage.tcp})
    assert f"does not allow port {stage.tcp}" in await stage.refused("thief", "ListenNotAllowed")
    with pytest.raises(OSError, match="Connect call failed"):
        await line(stage.tcp)
    await stage.runs(stage.victim, "db", echoes("owner"), "tcp")
    await stage.claims(stage.victim, "db", {"protocol": "tcp", "listen": stage.tcp})
    await stage.answers(stage.tcp, "owner\n")


async def test_overlapping_sources_stop_no_tls_service_of_others(stage: Stage) -> None:
    own = stage.tenant.objects
    await stage.runs(own, "breaks", echoes("breaks"), "https")
    await stage.claims(own, "breaks", {"ignore": [{"sources": ["10.0.0.1", "10.0.0.1/32", "::1", "0::1/128"]}]})
    await stage.runs(stage.victim, "secure", echoes("owner"), "https")
    await stage.label(stage.victim, "secure")
    for host, text in ((f"secure.{stage.victim.namespace}", "owner"), (f"breaks.{own.namespace}", "breaks")):

        async def greeted(host: str = host, text: str = text) -> bool:
            return await greeting(stage.tls, host) == text

        await until_async(greeted, f"the service of {host}", PATIENCE_SECONDS)


async def test_rejection_is_reported_at_the_service_it_is_about(stage: Stage) -> None:
    """The port is taken on the machine of the proxy: nothing but a real Envoy knows."""
    with socket.create_server(("0.0.0.0", stage.tcp)):
        await stage.runs(stage.victim, "db", echoes("db"), "tcp")
        await stage.claims(stage.victim, "db", {"protocol": "tcp", "listen": stage.tcp})
        message = await stage.refused("db", "RejectedByEnvoy", stage.victim)
        assert f"cannot bind '0.0.0.0:{stage.tcp}'" in message
        await stage.runs(stage.tenant.objects, "web", pages("web"))
        await stage.label(stage.tenant.objects, "web")
        await stage.leads(f"web.{stage.tenant.namespace}", "web")
        where = path(API_VERSION, PLURAL, stage.victim.namespace, "db")
        await stage.api.patch(where, {"spec": {"listen": stage.tcp + 1}}, MERGE_PATCH)

        async def mended() -> bool:
            conditions = (await stage.victim.get("db"))["status"]["conditions"]
            return "RejectedByEnvoy" not in {one["reason"] for one in conditions}

        await until_async(mended, "the condition is as before", PATIENCE_SECONDS)
        # The condition may be gone before the Envoy has the listener.
        await stage.answers(stage.tcp + 1, "db\n")
