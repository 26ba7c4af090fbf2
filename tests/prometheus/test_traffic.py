"""`zenvoy up` with a real Prometheus as the source of traffic."""

from __future__ import annotations

import ssl
import time
import urllib.parse
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from reconciler.local.state_dir import GRPC_SOCKET
from tests.certificates import Authority
from tests.e2e.conftest import Start
from tests.e2e.harness import request, server
from tests.prometheus.between import Line
from tests.prometheus.conftest import Ports, StartPrometheus
from tests.prometheus.judged import judged, page, until, value
from tests.prometheus.parts import PATIENCE_SECONDS, Prometheus

pytestmark = [pytest.mark.envoy, pytest.mark.prometheus]
ASLEEP = "ScaledToZero"
SECRET_BY_BCRYPT = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"


def test_service_sleeps_and_wakes_with_prometheus(zenvoy: Start, ports: Ports, prometheus: StartPrometheus) -> None:
    watching = prometheus()
    up = judged(zenvoy, ports, watching.url)

    assert request(up.http_port, "web", "/hello").status == 200
    up.wait_state("web", ASLEEP, timeout=PATIENCE_SECONDS)
    up.asleep("web")
    asleep = 'zenvoy_service_state{state="ScaledToZero"} == 1'
    until("Prometheus reports it", lambda: watching.query(asleep))
    # Whenever its latest scrape succeeded: a slow one leaves a gap.
    until("it has the wake", lambda: watching.query("zenvoy_service_wakes_total{result='woken'}") == {"web": 1})
    until("it has the request", lambda: watching.query("zenvoy_service_requests_total") == {"web": 1})

    assert request(up.http_port, "web", "/hello").status == 200
    until("Prometheus says so", lambda: watching.query("zenvoy_service_requests_total") == {"web": 2})
    assert up.wakes("web") == 2


def test_traffic_seen_only_by_prometheus_wakes_a_service(
    zenvoy: Start, ports: Ports, prometheus: StartPrometheus
) -> None:
    """Cut only the holder's stream, so that it holds connections without reporting them."""
    up = judged(zenvoy, ports, prometheus().url)
    line = Line(up.state_dir / GRPC_SOCKET)
    up.kill("holder")
    until("the next holder's stream is open", lambda: stream_up(ports) == 1 and line.used.is_set())
    request(up.http_port, "web", "/hello")
    up.wait_state("web", ASLEEP, timeout=PATIENCE_SECONDS)
    holder = up.pids()["holder"]

    line.cut()
    until("the holder is disconnected", lambda: stream_up(ports) == 0)
    with ThreadPoolExecutor() as clients:
        waiting = clients.submit(request, up.http_port, "web", "/hello", timeout=60)
        up.wait_state("web", "Active", "Idle", timeout=PATIENCE_SECONDS)
        woke = [entry for entry in up.transitions("web") if entry["target"] == "Waking"][-1]
        assert woke["cause"] == "DemandSeen"
        assert woke["reason"].startswith("Envoy reported traffic")
        until("the holder holds it", lambda: value(ports.holder, "zenvoy_holder_held", service="web") == 1)
        assert not waiting.done()
        line.restore()
        assert waiting.result().status == 200
    assert up.pids()["holder"] == holder


def stream_up(ports: Ports) -> float | None:
    """Return the holder's metric of its stream, or None while no holder answers."""
    try:
        return value(ports.holder, "zenvoy_holder_stream_up")
    except OSError:
        return None


def test_prometheus_with_tls_and_authentication(zenvoy: Start, ports: Ports, tmp_path: Path) -> None:
    files = Authority(tmp_path / "authority").sign(tmp_path / "tls", "localhost")
    web = {"tls_server_config": {"cert_file": f"{files}/tls.crt", "key_file": f"{files}/tls.key"}}
    (tmp_path / "web.yml").write_text(yaml.safe_dump({**web, "basic_auth_users": {"me": SECRET_BY_BCRYPT}}))
    secured = Prometheus(tmp_path, ports.targets, options=[f"--web.config.file={tmp_path}/web.yml"])
    secured.url = secured.url.replace("http://127.0.0.1", "https://localhost")
    secured.trusted = ssl.create_default_context(cafile=f"{files}/ca.crt")
    secured.headers = {"Authorization": "Basic " + b64encode(b"me:secret").decode()}
    try:
        secured.start()
        known = ("--prometheus-ca-file", f"{files}/ca.crt")
        (tmp_path / "headers").write_text(f"Authorization: {secured.headers['Authorization']}\n")
        header = ("--prometheus-headers-file", str(tmp_path / "headers"))
        up = judged(zenvoy, ports, secured.url, *known, *header)
        assert request(up.http_port, "web", "/hello").status == 200
        up.wait_state("web", ASLEEP, timeout=PATIENCE_SECONDS)
    finally:
        secured.close()


def test_bundled_prometheus_has_rules_and_exemplars(zenvoy: Start, ports: Ports) -> None:
    up = zenvoy({"name": "web", "command": server("http_echo")}, options=(*ports.options, "--with-prometheus"))

    assert request(up.http_port, "web", "/hello").status == 200
    up.wait_state("web", ASLEEP, timeout=PATIENCE_SECONDS)
    assert request(up.http_port, "web", "/hello").status == 200
    assert up.wakes("web") == 2
    own = urllib.parse.urlsplit(next(said["at"] for said in up.lines() if said.get("event") == "Prometheus")).netloc
    assert "ServiceStuckWaking" in page(own, "/api/v1/rules")
    exemplars = f"/api/v1/query_exemplars?query=zenvoy_wake_duration_seconds_bucket&start=0&end={time.time() + 60}"
    until("exemplars are kept", lambda: '"service":"web"' in page(own, exemplars))
