"""Real Envoys that join from elsewhere: by name, by mutual TLS, and showing their statistics to others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml

from reconciler.envoy.admin_stats import QUERY
from tests.ports import free_port
from tests.xds.certificates import Authority, Mounted, authority
from tests.xds.parts import Plane, envoy, plane, until, until_async
from xds import ir
from xds.bootstrap.document import Tls, secrets
from xds.bootstrap.stats_listener import SCRAPE, STATS_PATH

pytestmark = pytest.mark.envoy
NAME = "zenvoy-reconciler.zenvoy-system.svc"


def open_with_a_listener(running: Plane) -> int:
    port = free_port()
    running.server.configure(ir.Listen(http=ir.SocketAddress("127.0.0.1", port)), [])
    running.server.open()
    return port


async def asked(stats: str, path: str, method: str = "GET", **options: Any) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{stats}{path}", **options) as answer,
    ):
        return answer.status, await answer.text()


async def test_stats_listener_other_admin_paths_are_refused(tmp_path: Path) -> None:
    stats = f"127.0.0.1:{free_port()}"
    async with plane() as running, envoy(tmp_path, running.port, reconciler="localhost", stats=stats) as joined:
        with pytest.raises(aiohttp.ClientConnectionError):
            await asked(stats, "/ready")
        await joined.listens(open_with_a_listener(running))
        [node] = running.server.nodes().values()
        assert node.stats == stats

        async def ready() -> bool:
            return await asked(stats, "/ready") == (200, "LIVE\n")

        await until_async(ready, "it is ready")
        status, text = await asked(stats, SCRAPE, params={"usedonly": ""})
        assert status == 200
        assert 'envoy_server_uptime{zenvoy_node="envoy-1"}' in text
        status, text = await asked(stats, STATS_PATH, params=QUERY)
        assert status == 200
        assert "server.uptime: " in text

        for path in ("/", "/stats", "/stats?usedonly", "/config_dump", "/clusters", "/certs", "/ready/", "/help"):
            assert (await asked(stats, path))[0] == 404, path
        for path in ("/quitquitquit", "/healthcheck/fail", "/drain_listeners", "/ready", "/accepting", SCRAPE):
            assert (await asked(stats, path, "POST"))[0] == 404, path
        for path in ("/stats/prometheus/../../quitquitquit", "/stats/prometheus/%2e%2e/config_dump"):
            assert (await asked(stats, path))[0] == 404, path


async def test_stats_listener_tells_accepting_from_ready(tmp_path: Path) -> None:
    stats = f"127.0.0.1:{free_port()}"
    async with plane() as running, envoy(tmp_path, running.port, stats=stats) as joined:
        with pytest.raises(aiohttp.ClientConnectionError):
            await asked(stats, "/accepting")
        await joined.listens(open_with_a_listener(running))
        assert (await asked(stats, "/accepting"))[0] == 200

        connector = aiohttp.UnixConnector(str(joined.admin))
        async with aiohttp.ClientSession("http://admin", connector=connector) as admin:
            (await admin.post("/healthcheck/fail")).raise_for_status()
            assert (await asked(stats, "/ready"))[0] == 503
            assert (await asked(stats, "/accepting"))[0] == 200
            (await admin.post("/drain_listeners")).raise_for_status()

        async def is_refused() -> bool:
            try:
                await asked(stats, "/accepting")
            except aiohttp.ClientConnectionError:
                return True
            return False

        await until_async(is_refused, "its listeners are closed")


async def test_stats_listener_scrape_is_not_a_client(tmp_path: Path) -> None:
    stats = f"127.0.0.1:{free_port()}"
    async with plane() as running, envoy(tmp_path, running.port, stats=stats) as joined:
        await joined.listens(open_with_a_listener(running))
        await until_async(lambda: joined.get("/ready"), "it is ready")
        assert (await asked(stats, "/ready"))[0] == 200
        assert not [name for name in await joined.stats("listener") if "zenvoy_stats" in name]


def credentials(ca: Authority, *names: str) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([ca.issue(name) for name in names], ca.certificate, require_client_auth=True)


def tls(mounted: Mounted, directory: Path, server_name: str = NAME) -> Tls:
    directory.mkdir(exist_ok=True)
    at = str(mounted.path)
    made = Tls(f"{at}/tls.crt", f"{at}/tls.key", f"{at}/ca.crt", server_name, str(directory))
    for name, content in secrets(made).items():
        (directory / name).write_text(yaml.safe_dump(content))
    return made


async def test_tls_certificates_replaced_need_no_restart(tmp_path: Path) -> None:
    old, new = authority(tmp_path / "old", "old"), authority(tmp_path / "new", "new")
    mounted = Mounted(tmp_path / "mounted")
    key, certificate = old.issue("zenvoy-proxy")
    mounted.write(tls_crt=certificate, tls_key=key, ca_crt=old.certificate)
    files = tls(mounted, tmp_path / "secrets")
    port = free_port()
    async with plane(port, credentials=credentials(old, NAME)) as running:
        joining = envoy(tmp_path, port, tls=files)
        joined = await joining.__aenter__()
        open_with_a_listener(running)
        await until(running.server.nodes, "it joins")
    try:
        async with plane(port, credentials=credentials(new, NAME)) as running:
            open_with_a_listener(running)

            async def failed() -> bool:
                counted = await joined.stats("zenvoy_ads.*cx_total")
                return sum(counted.values()) > 3

            await until_async(failed, "it tries in vain, for it does not trust the new authority")
            assert not running.server.nodes()
            key, certificate = new.issue("zenvoy-proxy")
            mounted.write(tls_crt=certificate, tls_key=key, ca_crt=new.certificate)
            await until(running.server.nodes, "it joins with what was mounted anew")
            assert joined.process.returncode is None
    finally:
        await joining.__aexit__(None, None, None)


@pytest.mark.parametrize("fault", ["another name", "another authority", "no certificate"])
async def test_tls_client_without_certificate_does_not_join(tmp_path: Path, fault: str) -> None:
    ca, other = authority(tmp_path / "ca", "ca"), authority(tmp_path / "other", "other")
    mounted = Mounted(tmp_path / "mounted")
    key, certificate = (other if fault == "another authority" else ca).issue("zenvoy-proxy")
    mounted.write(tls_crt=certificate, tls_key=key, ca_crt=ca.certificate)
    wanted = "another-name" if fault == "another name" else NAME
    files = None if fault == "no certificate" else tls(mounted, tmp_path / "secrets", wanted)
    async with plane(credentials=credentials(ca, NAME)) as running, envoy(tmp_path, running.port, tls=files) as joined:
        open_with_a_listener(running)

        async def tried() -> bool:
            counted = await joined.stats("zenvoy_ads.*cx_total")
            return sum(counted.values()) > 3

        await until_async(tried, "it tries again and again")
        assert not running.server.nodes()
