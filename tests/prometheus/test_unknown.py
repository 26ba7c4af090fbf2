"""Unknown usage with a real Prometheus: each kind of incomplete data keeps a service awake.

All tests share one `zenvoy up`. Proxies between it, Prometheus, and Envoy break the communication.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import Zenvoy, quick, request
from tests.prometheus.between import Front
from tests.prometheus.conftest import Ports
from tests.prometheus.judged import judged, until, value
from tests.prometheus.parts import PATIENCE_SECONDS, Prometheus

pytestmark = [pytest.mark.envoy, pytest.mark.prometheus]
IDLE_AFTER, LONGER_SECONDS = "1s", 1.5


@dataclass(frozen=True)
class Scene:
    """Envoy ← `envoy` ← Prometheus ← `front` ← the reconciler."""

    up: Zenvoy
    ports: Ports
    prometheus: Prometheus
    envoy: Front
    front: Front

    def unknown(self, cause: str) -> float:
        return value(self.ports.metrics, "zenvoy_samples_unknown_total", cause=cause)

    def sample(self) -> str:
        """Return the latest sample in `explain`."""
        return str(self.up.ask("GET", "/v1/services/web/explain")["sample"])

    def complete(self) -> bool:
        return value(self.ports.metrics, "zenvoy_sample_complete") == 1.0

    def said(self, *command: str) -> str:
        """Return the output of a command on one line."""
        return " ".join(self.up.cli(*command).stdout.split())


@pytest.fixture(scope="module")
def scene(shared_zenvoy: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    ports = Ports()
    with ExitStack() as stack:
        envoy = Front(f"http://{ports.metrics}")
        stack.callback(envoy.close)
        targets = {"envoy": (envoy.address, "/envoy/metrics")}
        prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), targets)
        stack.callback(prometheus.close)
        prometheus.start()
        front = Front(prometheus.url)
        stack.callback(front.close)
        up = judged(shared_zenvoy, ports, front.url, idleAfter=IDLE_AFTER, command=quick("http"))
        yield Scene(up, ports, prometheus, envoy, front)


@contextmanager
def down(scene: Scene) -> Iterator[None]:
    scene.prometheus.kill()
    try:
        yield
    finally:
        scene.prometheus.start()


@contextmanager
def slow(scene: Scene) -> Iterator[None]:
    scene.prometheus.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        scene.prometheus.signal(signal.SIGCONT)


@contextmanager
def no_target(scene: Scene) -> Iterator[None]:
    scene.prometheus.scrape("envoy")
    try:
        yield
    finally:
        scene.prometheus.scrape_as_before()


@contextmanager
def target_down(scene: Scene) -> Iterator[None]:
    scene.envoy.away = True
    until("its scrape fails", lambda: "envoy" in scene.prometheus.query("up == 0"))
    try:
        yield
    finally:
        scene.envoy.away = False


@contextmanager
def seldom(scene: Scene) -> Iterator[None]:
    scene.prometheus.scrape("envoy", scrape_interval="5s")
    try:
        yield
    finally:
        scene.prometheus.scrape_as_before()


@contextmanager
def lossy(scene: Scene) -> Iterator[None]:
    rule = {"source_labels": ["__name__"], "regex": "envoy_cluster_upstream_rq_active", "action": "drop"}
    scene.prometheus.scrape("envoy", metric_relabel_configs=[rule])
    try:
        yield
        until("doctor names it", lambda: "envoy_cluster_upstream_rq_active" in scene.said("doctor"))
    finally:
        scene.prometheus.scrape_as_before()


def warned(_: str, answer: dict[str, Any]) -> None:
    answer["warnings"] = ["a store is away"]


def not_a_number(query: str, answer: dict[str, Any]) -> None:
    if query != "time()":
        answer["data"]["result"][0]["value"][1] = "NaN"


def ahead(query: str, answer: dict[str, Any]) -> None:
    if query == "time()":
        now, _ = answer["data"]["result"]
        answer["data"]["result"][1] = str(now + 60)


def changed(change: Callable[[str, dict[str, Any]], None]) -> Callable[[Scene], Any]:
    @contextmanager
    def broken(scene: Scene) -> Iterator[None]:
        scene.front.change = change
        try:
            yield
        finally:
            scene.front.change = None

    return broken


CASES = {
    "down": (down, "prometheus", "Prometheus: it cannot be reached"),
    "slow": (slow, "prometheus", "Prometheus: it did not answer in time"),
    "no target": (no_target, "envoy_missing", "s ago; expected every 0.25 s|Prometheus has no recent scrape of it"),
    "target down": (target_down, "envoy_missing", "Prometheus has no recent scrape of it"),
    "seldom": (seldom, "envoy_missing", "s ago; expected every 0.25 s"),
    "lossy": (lossy, "envoy_missing", "Prometheus lacks envoy_cluster_upstream_rq_active of it"),
    "warnings": (changed(warned), "prometheus", "Prometheus: it has warnings, so its answer may be partial"),
    "not a number": (changed(not_a_number), "envoy_missing", "is not a number"),
    "clock": (changed(ahead), "prometheus", "s ahead of ours"),
}
"""By name: a context manager that breaks it, the counted cause, and a pattern of the message."""
UNKNOWN = "usage is unknown, so no service sleeps: "


@pytest.mark.parametrize(("broken", "cause", "words"), CASES.values(), ids=CASES.keys())
def test_incomplete_prometheus_data_keeps_a_service_awake(
    scene: Scene, broken: Callable[[Scene], Any], cause: str, words: str, tmp_path: Path
) -> None:
    """The last request is in flight when the data becomes incomplete, and ends before it is complete again."""
    before, gate = scene.unknown(cause), tmp_path / "go"
    with ThreadPoolExecutor() as clients:
        last = clients.submit(request, scene.up.http_port, "web", f"/until{gate}")
        until("the request is in flight", lambda: "1 in flight" in str(scene.up.status("web")["traffic"]))
        with broken(scene):
            until("usage is unknown", lambda: re.search(words, scene.sample()))
            gate.touch()
            assert last.result().status == 200
            scene.up.stays_awake("web", LONGER_SECONDS)
            until("explain says why", lambda: re.search(f"(?s){UNKNOWN}.*({words})", scene.said("explain", "web")))
            assert scene.unknown(cause) > before
        until("a sample is complete", scene.complete)


def test_service_sleeps_once_data_is_complete_again(scene: Scene) -> None:
    assert request(scene.up.http_port, "web", "/hello").status == 200
    assert scene.up.wait_state("web", "ScaledToZero", timeout=PATIENCE_SECONDS)
