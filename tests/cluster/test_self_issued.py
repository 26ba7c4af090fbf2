"""Certificates that replicas issue into the chart's empty Secrets, with the chart's rights, at a real API server."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.app.certificates import REISSUE_ANNOTATION, SelfIssuedCertificates
from reconciler.app.cluster_settings import SelfIssue
from reconciler.core.access import PROXY, RECONCILER
from reconciler.kubernetes.client.api import connect
from reconciler.server.credentials import x509
from reconciler.server.credentials.authority import AUTHORITY, CERTIFICATE, DAY_SECONDS, Authority, current, stored
from reconciler.server.credentials.x509 import Validity
from tests.cluster.chart import Chart
from tests.cluster.harness import Cluster, ToolFailed
from tests.cluster.rights import kubeconfig_of
from tests.xds.parts import until_async

CA, PROXIES = "zenvoy-self-issued-ca", "zenvoy-proxy-self-issued"
SERVER_NAME = "zenvoy-reconciler.zenvoy-system.svc"
ACCOUNT = "zenvoy-reconciler"
ALL = {"ca", "reconciler", "proxy"}
"""The certificates that each replica knows."""
Secrets = dict[str, dict[str, bytes]]


class Installed:
    """The chart, installed in a namespace of its own."""

    def __init__(self, cluster: Cluster, chart: Chart, folder: Path) -> None:
        self.cluster, self.chart = cluster, chart
        self.kubeconfig = kubeconfig_of(cluster, chart.namespace, ACCOUNT, folder)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return self.cluster.kubectl(*arguments, "--namespace", self.chart.namespace, given=given)

    def secrets(self) -> Secrets:
        """Return the data of the Secrets, by name."""
        found = {}
        for name in (CA, PROXIES):
            data = json.loads(self.kubectl("get", "secret", name, "-o", "json")).get("data") or {}
            found[name] = {key: base64.b64decode(value) for key, value in data.items()}
        return found

    def patch(self, name: str, body: dict[str, Any]) -> None:
        self.kubectl("patch", "secret", name, "--type=merge", "-p", json.dumps(body))

    def store(self, name: str, data: dict[str, bytes]) -> None:
        self.patch(name, {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}})

    def authority(self) -> Authority | None:
        return stored(self.secrets()[CA])

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[SelfIssuedCertificates]:
        """Keep the certificates of one replica up to date until the end of the block."""
        api = await connect(self.kubeconfig)
        made = SelfIssuedCertificates(api, self.chart.namespace, SelfIssue(CA, PROXIES), (SERVER_NAME,))
        running = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await api.close()


@pytest.fixture
def installed(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[Installed]:
    chart = Chart(control_plane, namespace, tmp_path)
    chart.install()
    yield Installed(control_plane, chart, tmp_path)
    chart.uninstall()


async def until(holds: Callable[[], bool], what: str) -> None:
    async def held() -> bool:
        return await asyncio.to_thread(holds)

    await until_async(held, what)


def has(made: SelfIssuedCertificates, authority: Authority | None) -> bool:
    """Return whether a replica serves with a certificate of that authority, and trusts and knows its certificates."""
    if authority is None or not made.expiries:
        return False
    material = made.read()
    is_of_it = x509.is_signed_by(material.certificate, authority.active.certificate)
    return is_of_it and material.authority == authority.bundle and set(made.expiries) == ALL


async def issued(installed: Installed, *replicas: SelfIssuedCertificates) -> Secrets:
    """Wait until the Secrets are complete and these replicas agree with them, and return them."""

    def agreed() -> bool:
        found = installed.secrets()
        by = stored(found[CA])
        if by is None or not found[PROXIES] or found[PROXIES][AUTHORITY] != by.bundle:
            return False
        is_of_it = x509.is_signed_by(found[PROXIES][CERTIFICATE], by.active.certificate)
        return is_of_it and all(has(one, by) for one in replicas)

    await until(agreed, "certificates are issued, and the replicas agree")
    return installed.secrets()


async def test_replicas_starting_at_once_agree(installed: Installed) -> None:
    assert installed.secrets() == {CA: {}, PROXIES: {}}
    async with installed.replica() as one, installed.replica() as two, installed.replica() as three:
        found = await issued(installed, one, two, three)
        assert len(x509.split(found[CA][AUTHORITY])) == 1
        assert found[PROXIES][AUTHORITY] == found[CA][AUTHORITY]
        proxy, own = x509.read(found[PROXIES][CERTIFICATE]), x509.read(one.read().certificate)
        assert (proxy.uris, proxy.dns, proxy.serves) == ((PROXY.uri,), (), False)
        assert (own.uris, own.serves) == ((RECONCILER.uri,), True) and SERVER_NAME in own.dns
        assert x509.is_signed_by(found[PROXIES][CERTIFICATE], found[CA][CERTIFICATE])
        assert set(one.expiries) == ALL


async def test_certificates_survive_upgrade_apply_and_sync(installed: Installed) -> None:
    """By helm, `kubectl apply`, server-side apply as Flux does, and a replacement of the whole object."""
    async with installed.replica() as one:
        before = await issued(installed, one)
        chart = installed.chart
        chart.upgrade()
        rendered = chart.render()
        assert rendered == chart.render()
        mtls = "\n---\n".join(
            part for part in rendered.split("\n---\n") if "# Source: zenvoy/templates/mtls.yaml" in part
        )
        assert mtls.count("kind: Secret") == 2
        installed.kubectl("apply", "-f", "-", given=mtls)
        installed.kubectl("apply", "-f", "-", given=mtls)
        assert "configured" not in installed.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", given=mtls
        )
        chart.upgrade({"proxy": {"replicas": 3}})
        assert installed.secrets() == before
        installed.kubectl("replace", "-f", "-", given=mtls)
        after = await issued(installed, one)
        assert after[CA] == before[CA]


async def test_authority_secret_deleted_returns_with_upgrade(installed: Installed) -> None:
    async with installed.replica() as one:
        before = await issued(installed, one)
        installed.kubectl("delete", "secret", CA, PROXIES)
        installed.chart.upgrade()
        after = await issued(installed, one)
        assert after[CA] == before[CA]


async def test_authority_is_kept_by_new_replicas(installed: Installed) -> None:
    async with installed.replica() as one:
        before = await issued(installed, one)
    async with installed.replica() as another:
        assert await issued(installed, another) == before


async def test_reissue_annotation_replaces_authority(installed: Installed) -> None:
    async with installed.replica() as one, installed.replica() as two:
        before = await issued(installed, one, two)
        installed.kubectl("annotate", "secret", CA, f"{REISSUE_ANNOTATION}=true")
        await until(lambda: installed.secrets()[CA][CERTIFICATE] != before[CA][CERTIFICATE], "it is replaced")
        await until(lambda: installed.secrets()[PROXIES][AUTHORITY] != before[PROXIES][AUTHORITY], "so is the proxy's")
        after = await issued(installed, one, two)
        assert before[CA][CERTIFICATE] not in x509.split(after[CA][AUTHORITY])
        assert REISSUE_ANNOTATION not in installed.kubectl("get", "secret", CA, "-o", "yaml")


async def test_authority_near_its_end_is_replaced_with_overlap(installed: Installed) -> None:
    """First the successor is trusted; once the authority has three months left, the successor signs."""
    async with installed.replica() as one, installed.replica() as two:
        first = await issued(installed, one, two)
        active = stored(first[CA])
        assert active is not None
        now = x509.read(active.active.certificate).validity.since
        ending = x509.new_authority("ending", Validity(now - 600 * DAY_SECONDS, now + 170 * DAY_SECONDS))
        installed.store(CA, {**Authority(ending, None).data()})
        await until(lambda: bool((by := installed.authority()) and by.successor), "a successor is trusted")
        trusted = await issued(installed, one, two)
        assert x509.is_signed_by(trusted[PROXIES][CERTIFICATE], ending.certificate)
        assert len(x509.split(trusted[PROXIES][AUTHORITY])) == 2

        old = x509.new_authority("ending", Validity(now - 600 * DAY_SECONDS, now + 80 * DAY_SECONDS))
        successor = x509.new_authority("successor", Validity(now - DAY_SECONDS, now + 700 * DAY_SECONDS))
        installed.store(CA, Authority(old, successor).data())
        await until(lambda: bool((by := installed.authority()) and by.active == successor), "the successor signs")
        await until(
            lambda: x509.is_signed_by(installed.secrets()[PROXIES][CERTIFICATE], successor.certificate), "everything"
        )
        replaced = await issued(installed, one, two)
        assert old.certificate in x509.split(replaced[PROXIES][AUTHORITY])
        assert current(stored(replaced[CA]), now).active == successor


def test_rights_cover_no_other_secret(installed: Installed) -> None:
    installed.kubectl("create", "secret", "generic", "other", "--from-literal=a=b")
    for command in (("get", "secret", "other"), ("get", "secrets"), ("delete", "secret", CA)):
        with pytest.raises(ToolFailed, match=r"[Ff]orbidden"):
            installed.kubectl(*command, f"--kubeconfig={installed.kubeconfig}")


async def test_certificate_command_issues_for_one_node(installed: Installed, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "zenvoy"
    folder = tmp_path / "tls"
    folder.mkdir()
    where = ("--directory", folder, "--system-namespace", installed.chart.namespace)
    by_admin, by_account = (("--kubeconfig", one) for one in (installed.cluster.kubeconfig, installed.kubeconfig))
    with pytest.raises(ToolFailed, match="contains no authority"):
        installed.cluster.run(program, "certificate", "edge-1", *where, *by_admin)
    async with installed.replica() as one:
        found = await issued(installed, one)
    with pytest.raises(ToolFailed, match="denied the request"):
        installed.cluster.run(program, "certificate", "edge-1", *where, *by_account)
    installed.cluster.run(program, "certificate", "edge-1", *where, *by_admin, "--days", "7")
    facts = x509.read((folder / "tls.crt").read_bytes())
    assert (facts.uris, facts.dns, facts.serves) == (("spiffe://zenvoy/envoy/edge-1",), (), False)
    assert facts.validity.until - time.time() == pytest.approx(7 * DAY_SECONDS, abs=600)
    assert (folder / "ca.crt").read_bytes() == found[CA][AUTHORITY]
    assert [path.name for path in sorted(folder.iterdir())] == ["ca.crt", "tls.crt", "tls.key"]
    assert (folder / "tls.key").stat().st_mode & 0o777 == 0o600
