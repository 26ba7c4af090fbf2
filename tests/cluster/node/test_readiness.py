"""Readiness on a node: what ends a wake, zenvoy's own run of a pod's probes or Kubernetes, and why.

All services are woken at once by the fixture, and each test examines one of them. The kubelet runs the first probe of
a container at its start or after its initial delay, and another one after each period and at each sync of the pod.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import pytest

from tests.cluster.harness import Cluster, run
from tests.cluster.node.command import output_of
from tests.cluster.release import SYSTEM, WEB, Answer, Release, Shop, curl, new_shop, service, workload
from tests.e2e.harness import until as until_within

HOLD = "10m"
HOLD_SECONDS = 600.0
LATE = {"initialDelaySeconds": 3600}
"""The kubelet's first probe comes long after the test."""
LATE_PORT, FENCED_PORT = 8090, 8099
UNREADY = {"READY": "503"}
LISTENS_LATE = {"LATE_PORT": str(LATE_PORT)}
GATE = "zenvoy.dev/test"
FENCE = "zenvoy_test"
RULES = f"""
add table bridge {FENCE}
delete table bridge {FENCE}
table bridge {FENCE} {{
  counter dropped {{}}
  chain forward {{ type filter hook forward priority 0; tcp dport {FENCED_PORT} counter name dropped drop; }}
}}
"""
"""Between pods, as a NetworkPolicy does; the kubelet's own connections are not forwarded."""


def http(period: int, port: int = 8080) -> dict[str, Any]:
    return {"httpGet": {"path": "/ready", "port": port}, "periodSeconds": period}


def tcp(period: int) -> dict[str, Any]:
    return {"tcpSocket": {"port": LATE_PORT}, "periodSeconds": period}


def grpc(period: int) -> dict[str, Any]:
    return {"grpc": {"port": 8080}, "periodSeconds": period}


def container(name: str = "web", environment: Mapping[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a container; one called `web` has the port of the Service."""
    ports = [{"name": "http", "containerPort": 8080}] if name == "web" else []
    listed = [{"name": key, "value": value} for key, value in (environment or {}).items()]
    return {"name": name, "image": WEB, "ports": ports, "env": listed, **fields}


def pod(*containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"containers": list(containers), "terminationGracePeriodSeconds": 1, **fields}


PODS = {
    "second": pod(container(environment=UNREADY, readinessProbe=http(1))),
    "ten": pod(container(environment=UNREADY, readinessProbe=http(10))),
    "minute": pod(container(readinessProbe=grpc(60) | {"initialDelaySeconds": 30})),
    "tcp": pod(container(environment=UNREADY | LISTENS_LATE, readinessProbe=tcp(60) | LATE)),
    "startup": pod(
        container(environment=UNREADY | LISTENS_LATE, startupProbe=tcp(10) | LATE, readinessProbe=http(10) | LATE)
    ),
    "together": pod(
        container(readinessProbe=http(10) | LATE),
        container("slow", {"PORTS": "8081", **UNREADY}, readinessProbe=http(10, 8081) | LATE),
        initContainers=[
            container("sidecar", {"PORTS": "8082", **UNREADY}, readinessProbe=http(10, 8082) | LATE)
            | {"restartPolicy": "Always"}
        ],
    ),
    "again": pod(container(environment=UNREADY, readinessProbe=http(10) | LATE)),
    "command": pod(container(environment=UNREADY, readinessProbe={"exec": {"command": ["/web", "check"]}})),
    "gate": pod(container(readinessProbe=http(1)), readinessGates=[{"conditionType": GATE}]),
    "fenced": pod(
        container(environment=UNREADY | {"PORTS": f"8080 {FENCED_PORT}"}, readinessProbe=http(1, FENCED_PORT))
    ),
}
PROBED = ("second", "ten")
"""Those that the kubelet probes before they become ready, and again soon after."""


def until(what: str, check: Any) -> Any:
    return until_within(what, check, HOLD_SECONDS)


@dataclass
class Wakes:
    """The wakes of all services, which began at once."""

    zenvoy: Release
    shop: Shop
    clients: ThreadPoolExecutor
    answers: dict[str, Future[tuple[Answer, bool]]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    def ask(self, name: str, path: str = "/") -> Future[tuple[Answer, bool]]:
        """Send a request; return its answer, and whether Kubernetes called the pod ready when it came."""
        return self.clients.submit(self._ask, name, path)

    def answer(self, name: str) -> bool:
        """Wait until the first request is answered, and return whether Kubernetes called the pod ready then."""
        answer, ready = self.answers[name].result(HOLD_SECONDS)
        assert answer.status == 200, answer.body
        return ready

    def is_held(self, name: str) -> bool:
        return not self.answers[name].done()

    def ended_by(self, name: str) -> str:
        """Return what ended the wake, by `zenvoy explain`; the metric must agree."""
        self.shop.until(name, "Active", "Idle")
        found = self.explained(name)
        by_probes = found["service"]["lastWake"]["early"]
        assert self.metric(found["leader"]["pod"], name, "last_wake_early") == by_probes
        return "probes" if by_probes else "Kubernetes"

    def explained(self, name: str) -> dict[str, Any]:
        """Return what `zenvoy explain` reports."""
        output = output_of(self.zenvoy, "explain", name, "-n", self.shop.namespace, "-o", "json")
        found: dict[str, Any] = json.loads(output)
        return found

    def metric(self, leader: str, name: str, metric: str) -> float | None:
        """Return the value that the leader exports; None without a series."""
        address = self.zenvoy.node.kubectl("get", "pod", leader, "-n", SYSTEM, "-o", "jsonpath={.status.podIP}")
        page = curl(f"http://{address}:18080/metrics").body
        series = f'zenvoy_service_{metric}{{service="{self.shop.namespace}/{name}"}} '
        values = [line.removeprefix(series) for line in page.splitlines() if line.startswith(series)]
        return float(values[0]) if values else None

    def stalled(self, name: str, reason: str) -> str | None:
        """Return the message of the condition Stalled, once it has this reason."""
        conditions = self.shop.get("ssvc", name)["status"]["conditions"]
        wanted = {"type": "Stalled", "status": "True", "reason": reason}
        return next((one["message"] for one in conditions if wanted.items() <= one.items()), None)

    def address(self, name: str) -> str:
        """Return the address of the pod, which does not change."""
        if name not in self.addresses:
            address = until(f"{name} has an address", lambda: self._of_pods(name, "{.items[*].status.podIP}"))
            self.addresses[name] = str(address)
        return self.addresses[name]

    def begin(self) -> None:
        """Let each program become ready as soon as the kubelet's first probe of it has failed."""
        for name in ("tcp", "startup", "again"):
            self.set_ready(name, 200)
        waiting = set(PROBED)

        def all_failed() -> bool:
            for name in waiting & self._failed():
                self.set_ready(name, 200)
                waiting.remove(name)
            return not waiting

        until("the kubelet's first probes fail", all_failed)

    def is_ready(self, name: str) -> bool:
        """Return whether Kubernetes calls the pod ready."""
        return self._of_pods(name, "{.items[*].status.conditions[?(@.type=='Ready')].status}") == "True"

    def set_ready(self, name: str, status: int, port: int = 8080) -> None:
        """Set the status of the readiness path of a container."""
        curl(f"http://{self.address(name)}:{port}/ready?status={status}", "-X", "PUT")

    def until_probed(self, name: str, port: int = 8080) -> None:
        """Wait until zenvoy has probed a container once more, and has received the answer."""
        url = f"http://{self.address(name)}:{port}/probes"
        until(f"{name} listens at {port}", lambda: "200" in _status(url))
        before = int(curl(url).body)
        until(f"{name} is probed at {port}", lambda: int(curl(url).body) > before + 1)

    def _ask(self, name: str, path: str) -> tuple[Answer, bool]:
        answer = self.zenvoy.curl(self.shop.host(name), path, seconds=HOLD_SECONDS)
        return answer, self.is_ready(name)

    def _failed(self) -> set[str]:
        """Return the services of which a probe by the kubelet has failed."""
        where = "jsonpath={.items[*].involvedObject.name}"
        pods = self.shop.kubectl("get", "events", "--field-selector", "reason=Unhealthy", "-o", where).split()
        return {pod.split("-")[0] for pod in pods}

    def _of_pods(self, name: str, path: str) -> str:
        return self.shop.kubectl("get", "pods", "-l", f"app={name}", "-o", f"jsonpath={path}")


def _status(url: str) -> str:
    return run("sh", "-c", f"curl -s -o /dev/null -w '%{{http_code}}' {url} || true")


def _dropped_packets() -> int:
    listed = json.loads(run("nft", "--json", "list", "counter", "bridge", FENCE, "dropped"))["nftables"]
    return int(next(one["counter"]["packets"] for one in listed if "counter" in one))


@pytest.fixture(scope="module")
def fence(loaded: Cluster) -> Iterator[None]:
    """Drop all connections between pods to the probe's port of `fenced`."""
    run("nft", "-f", "-", given=RULES)
    yield
    run("nft", "delete", "table", "bridge", FENCE)


@pytest.fixture(scope="module")
def wakes(zenvoy: Release, loaded: Cluster, fence: None) -> Iterator[Wakes]:
    """Wake all services with one request each."""
    with new_shop(loaded) as shop, ThreadPoolExecutor(2 * len(PODS)) as clients:
        objects: list[dict[str, Any]] = []
        for name, spec in PODS.items():
            deployment = workload("Deployment", name, {}, 0)
            deployment["spec"]["template"]["spec"] = spec
            settings = {"idle-after": "1h", "hold-timeout": HOLD, "wake-timeout": HOLD, "capture": "none"}
            marked = service(name, 80, "http")
            marked["metadata"]["annotations"] = {f"zenvoy.dev/{key}": value for key, value in settings.items()}
            marked["metadata"]["labels"] = {"zenvoy.dev/enabled": "true"}
            objects += [deployment, marked]
        shop.apply(*objects)
        for name in PODS:
            shop.until(name, "ScaledToZero")
        made = Wakes(zenvoy, shop, clients)
        made.answers = {name: made.ask(name) for name in PODS}
        try:
            made.begin()
            yield made
        finally:
            # Clients that still wait are refused, so that their threads end.
            shop.kubectl("delete", "services", "--all", "--wait=false")


@pytest.mark.parametrize("name", [*PROBED, "minute", "tcp", "startup"])
def test_probes_end_the_wake_before_kubernetes(wakes: Wakes, name: str) -> None:
    """The kubelet's next probe may come first, unless its initial delay is long."""
    ready, ended_by = wakes.answer(name), wakes.ended_by(name)
    if name in PROBED:
        assert ended_by == "probes" or ready
    else:
        assert (ended_by, ready) == ("probes", False)


def test_all_containers_end_the_wake_together(wakes: Wakes) -> None:
    for port in (8080, 8081, 8082):
        wakes.until_probed("together", port)
    assert wakes.is_held("together")
    wakes.set_ready("together", 200, 8081)
    wakes.until_probed("together", 8082)
    assert wakes.is_held("together"), "the sidecar, an init container, is not ready"
    wakes.set_ready("together", 200, 8082)
    assert not wakes.answer("together")
    assert wakes.ended_by("together") == "probes"


def test_endpoint_that_fails_again_is_withdrawn(wakes: Wakes) -> None:
    assert not wakes.answer("again")
    assert wakes.ended_by("again") == "probes"
    text = output_of(wakes.zenvoy, "explain", "again", "-n", wakes.shop.namespace)
    assert "Kubernetes has not called it ready yet" in text
    until("its wake is reported", lambda: "Woken" in wakes.shop.events("again"))
    count, over = 2, Event()

    def repeated() -> list[int]:
        found = []
        while not over.is_set():
            found.append(wakes.zenvoy.curl(wakes.shop.host("again"), seconds=HOLD_SECONDS).status)
        return found

    clients = [wakes.clients.submit(repeated) for _ in range(count)]
    in_flight = wakes.ask("again", "/slow?for=5s")
    wakes.set_ready("again", 503)
    wakes.shop.until("again", "Waking")
    until("all clients are held", lambda: wakes.explained("again")["service"]["held"] >= count)
    wakes.until_probed("again")
    wakes.set_ready("again", 200)
    over.set()
    statuses = [status for client in clients for status in client.result(HOLD_SECONDS)]
    statuses.append(in_flight.result(HOLD_SECONDS)[0].status)
    assert set(statuses) == {200}
    assert not wakes.is_ready("again"), "Kubernetes has not agreed"
    assert len(wakes.shop.kubectl("get", "pods", "-l", "app=again", "-o", "name").split()) == 1


def test_command_probe_is_left_to_kubernetes(wakes: Wakes) -> None:
    message = until("the reason", lambda: wakes.stalled("command", "Unhealthy"))
    assert "/ready answers 503" in message
    assert "only Kubernetes decides, because the readiness probe of container web runs a command" in message
    assert wakes.is_held("command")
    wakes.set_ready("command", 200)
    assert wakes.answer("command")
    assert wakes.ended_by("command") == "Kubernetes"


def test_readiness_gate_is_left_to_kubernetes(wakes: Wakes) -> None:
    message = until("the reason", lambda: wakes.stalled("gate", "NotReady"))
    assert f"readiness gate {GATE}, which no controller has set" in message
    assert wakes.is_held("gate")
    condition = {"type": GATE, "status": "True"}
    patch = json.dumps({"status": {"conditions": [condition]}})
    name = wakes.shop.kubectl("get", "pods", "-l", "app=gate", "-o", "name").strip()
    wakes.shop.kubectl("patch", name, "--subresource=status", "--type=strategic", "-p", patch)
    assert wakes.answer("gate")
    assert wakes.ended_by("gate") == "Kubernetes"


def test_unreachable_probe_is_left_to_kubernetes(wakes: Wakes) -> None:
    until("zenvoy's probes are dropped", lambda: _dropped_packets() > 0)
    assert wakes.is_held("fenced")
    wakes.set_ready("fenced", 200)
    assert wakes.answer("fenced")
    assert wakes.ended_by("fenced") == "Kubernetes"
    assert curl(f"http://{wakes.address('fenced')}:8080/probes").body == "0"


def test_saved_time_is_reported_once_kubernetes_agrees(wakes: Wakes) -> None:
    """The last test, because the kubelet's first probe comes half a minute after the start."""
    until("Kubernetes calls it ready", lambda: wakes.is_ready("minute"))

    until("the saved time", lambda: wakes.explained("minute")["service"]["lastWake"]["savedSeconds"])
    text = output_of(wakes.zenvoy, "explain", "minute", "-n", wakes.shop.namespace)
    assert re.search(r"([\d.]+ m?s|\d+m\d+s) before Kubernetes called it ready", text)
