"""`zenvoy up` that judges by a real Prometheus: it sleeps and wakes by it, and stays awake when it is gone."""

from __future__ import annotations

import signal
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import Zenvoy, request, server
from tests.e2e.harness import until as until_within
from tests.prometheus.conftest import Ports, StartPrometheus
from tests.prometheus.parts import INTERVAL, PATIENCE_SECONDS, Prometheus

pytestmark = [pytest.mark.envoy, pytest.mark.prometheus]
ASLEEP = "ScaledToZero"


def until(what: str, check: Any) -> Any:
    return until_within(what, check, PATIENCE_SECONDS)


def judged(zenvoy: Start, ports: Ports, by: Prometheus, **service: str) -> Zenvoy:
    """A `zenvoy up` with a service that sleeps when `by` says so, once it knows what Envoy counts from."""
    options = (*ports.options, "--prometheus", by.url, "--scrape-interval", INTERVAL)
    up = zenvoy({"name": "web", "command": server("http_echo"), **service}, options=options)
    until("a sample is complete", lambda: "zenvoy_sample_complete 1.0" in scraped(ports.metrics))
    return up


def test_it_sleeps_and_wakes_by_prometheus(zenvoy: Start, ports: Ports, prometheus: StartPrometheus) -> None:
    watching = prometheus()
    up = judged(zenvoy, ports, watching)

    assert request(up.http_port, "web", "/hello").status == 200
    up.wait_state("web", ASLEEP, timeout=PATIENCE_SECONDS)
    up.asleep("web")
    asleep = 'zenvoy_service_state{state="ScaledToZero"} == 1'
    until("Prometheus says so", lambda: watching.query(asleep))
    assert watching.query("zenvoy_service_wakes_total{result='woken'}") == {"web": 1}
    assert watching.query("zenvoy_service_requests_total") == {"web": 1}

    assert request(up.http_port, "web", "/hello").status == 200
    until("Prometheus says so", lambda: watching.query("zenvoy_service_requests_total") == {"web": 2})
    assert up.wakes("web") == 2


def test_what_prometheus_alone_sees_wakes_it(zenvoy: Start, ports: Ports, prometheus: StartPrometheus) -> None:
    up = judged(zenvoy, ports, prometheus())
    request(up.http_port, "web", "/hello")
    up.wait_state("web", ASLEEP, timeout=PATIENCE_SECONDS)

    with ThreadPoolExecutor() as clients:
        holder = up.kill("holder", signal.SIGSTOP)
        try:
            waiting = clients.submit(request, up.http_port, "web", "/hello", timeout=60)
            up.wait_state("web", "Active", "Idle", timeout=PATIENCE_SECONDS)
            assert not waiting.done()
            woke = [entry for entry in up.transitions("web") if entry["target"] == "Waking"][-1]
            assert woke["cause"] == "Demand"
            assert woke["reason"].startswith("Envoy saw traffic")
        finally:
            up.kill("holder", signal.SIGCONT)
        assert up.pids()["holder"] == holder
        assert waiting.result().status == 200


def test_without_prometheus_it_stays_awake_and_says_why(
    zenvoy: Start, ports: Ports, prometheus: StartPrometheus
) -> None:
    watching = prometheus()
    up = judged(zenvoy, ports, watching, idleAfter="3s")
    request(up.http_port, "web", "/hello")
    up.wait_state("web", "Idle", timeout=PATIENCE_SECONDS)

    watching.kill()
    gone = "Prometheus: it cannot be reached"
    up.wait_status(
        "it is awake, and says why", "web", lambda view: view["state"] == "Active" and gone in view["reason"]
    )
    up.stays_awake("web", 4.0)
    assert gone in up.status("web")["traffic"]["reason"]
    assert gone in up.cli("status", "web").stdout
    assert "zenvoy_sample_complete 0.0" in scraped(ports.metrics)
    assert request(up.http_port, "web", "/hello").status == 200

    watching.start()
    up.wait_state("web", ASLEEP, timeout=PATIENCE_SECONDS)


def test_it_brings_a_prometheus_along_if_asked(zenvoy: Start, ports: Ports) -> None:
    up = zenvoy({"name": "web", "command": server("http_echo")}, options=(*ports.options, "--with-prometheus"))

    assert request(up.http_port, "web", "/hello").status == 200
    up.wait_state("web", ASLEEP, timeout=PATIENCE_SECONDS)
    assert request(up.http_port, "web", "/hello").status == 200
    assert up.wakes("web") == 2
    own = urllib.parse.urlsplit(next(said["at"] for said in up.lines() if said.get("event") == "Prometheus")).netloc
    assert "ServiceStuckWaking" in page(own, "/api/v1/rules")
    exemplars = f"/api/v1/query_exemplars?query=zenvoy_wake_duration_seconds_bucket&start=0&end={time.time() + 60}"
    until("exemplars are kept", lambda: '"service":"web"' in page(own, exemplars))


def scraped(address: str) -> str:
    return page(address, "/metrics")


def page(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return str(answer.read().decode())
