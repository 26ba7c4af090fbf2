"""Cold starts through zenvoy on a Kubernetes node, compared with scaling by hand: `python -m bench.cluster`.

The reference for a request to a sleeping service is the minimum for the same pod: from the scale call to the first
answer of its address, which is polled every millisecond as soon as Kubernetes reports it. The reference for many
services at once is scaling the same number by hand at once. Rounds alternate, so that both see the same machine. An
existing cluster is used as in the tests (tests/cluster/README.md).

For readiness (`python -m bench.cluster readiness` measures only that), both references come from the wake itself: the
moment from which the program answers its own probe, and the moment at which Kubernetes reports the pod as ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import table
from bench.processes import say
from bench.table import Row
from reconciler.kubernetes.client.api import JSON_PATCH, MERGE_PATCH, Api, connect
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, COMMAND_ANNOTATION, PLURAL
from tests.cluster import harness
from tests.cluster.release import Release, Shop, load_images, web, workload

ROUNDS = 20
MANY = (25, 50)
MANY_ROUNDS = 5
SLOW_ROUNDS = 5
SLOW_START, PROBE_PERIOD_SECONDS = "2s", 10
"""Start of a slow program, and its readiness period, which is Kubernetes' default."""
MAX_RATIO, MAX_RATIO_OF_MANY, MAX_RATIO_OF_SLOW = 1.05, 1.1, 1.1
PROBED_ROUNDS = 3
HTTP: dict[str, Any] = {"httpGet": {"path": "/ready", "port": "http"}}
PROBES: dict[str, dict[str, Any]] = {
    "http-1": HTTP | {"periodSeconds": 1},
    "http-10": HTTP | {"periodSeconds": 10},
    "http-60": HTTP | {"periodSeconds": 60},
    "grpc-10": {"grpc": {"port": 8080}, "periodSeconds": 10},
    "tcp-10": {"tcpSocket": {"port": "http"}, "periodSeconds": 10},
}
"""Readiness probes by kind and period; each program listens after `SLOW_START`."""
NAMESPACE = "bench"
PATIENCE_SECONDS = 180
LOOK_SECONDS = 2.0
REFILL_SECONDS = 4.0
WAKE: list[dict[str, Any]] = [
    {"op": "test", "path": "/spec", "value": {}},
    {"op": "add", "path": "/spec/replicas", "value": 1},
]


class Cold:
    """Sleeping services (`web-…`), and Deployments at zero that zenvoy does not manage (`hand-…`)."""

    def __init__(self, shop: Shop, api: Api, proxy: str) -> None:
        self._shop, self._api, self._proxy = shop, api, proxy

    def make(self, kind: str, count: int) -> list[str]:
        """Create `count` of a kind; those of zenvoy have woken and fallen asleep once."""
        names = [f"{kind}-{number}" for number in range(count)]
        self._shop.apply(*(part for name in names for part in _parts(name, int(kind.startswith("web")))))
        if kind.startswith("web"):
            for name in names:
                # A service that falls asleep while others wake would affect the measurement.
                self._shop.label(name, idle_after="1h", hold_timeout="5m", wake_timeout="5m")
        return names

    async def rest(self, names: list[str]) -> None:
        """Put all of them to sleep, and wait until no pod is left."""
        async with asyncio.timeout(PATIENCE_SECONDS + 3 * len(names)):
            while awake := await self._awake(names):
                await asyncio.gather(*(self._to_sleep(name) for name in awake))
                await asyncio.sleep(LOOK_SECONDS)
            while await self._pods(names):
                await asyncio.sleep(0.2)
        # Exclude the cleanup of the last pods; controllers also limit their calls in bursts.
        await asyncio.sleep(0.5 if len(names) < MANY[0] else REFILL_SECONDS)

    async def through_zenvoy(self, name: str) -> float:
        """Return the seconds from a request to its answer."""
        begin = time.perf_counter()
        await _ask(self._proxy, 10000, f"{name}.{NAMESPACE}")
        return time.perf_counter() - begin

    async def until_ready(self, name: str) -> float:
        """Return the time at which Kubernetes reports a pod as ready, in seconds since the epoch."""
        query = {"watch": "true", "labelSelector": f"app={name}"}
        async with self._api.lines(path("v1", "pods", NAMESPACE), query, PATIENCE_SECONDS) as lines:
            async for line in lines:
                pod = json.loads(line)["object"]
                conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
                if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                    return time.time()
        raise TimeoutError(f"{name} is not ready within {PATIENCE_SECONDS} s")

    async def probed(self, name: str) -> tuple[float, float, asyncio.Task[float]]:
        """Send a request to a sleeping service whose program listens late.

        Return the seconds until its answer, those until the program answered its own probe, and a task that returns
        those until Kubernetes called the pod ready.
        """
        begin = time.time()
        ready = asyncio.create_task(self.until_ready(name))
        answer = (await _ask(self._proxy, 10000, f"{name}.{NAMESPACE}")).lower()
        answered = time.time() - begin
        listening = int(answer.partition(b"listening-since: ")[2].split()[0]) / 1e9 - begin
        return answered, listening, asyncio.create_task(_since(begin, ready))

    async def by_hand(self, names: list[str]) -> list[float]:
        """Return the seconds from simultaneous scale calls to the first answer of each pod."""
        await asyncio.gather(*(self._api.get(_scale_of(name)) for name in names))  # exclude handshakes
        async with self._api.lines(path("v1", "pods", NAMESPACE), {"watch": "true"}, PATIENCE_SECONDS) as lines:
            begin = time.perf_counter()
            calls = asyncio.gather(*(self._scale(name, WAKE) for name in names))
            asked: dict[str, asyncio.Task[float]] = {}
            async for line in lines:
                pod = json.loads(line)["object"]
                name, address = pod["metadata"]["labels"]["app"], pod["status"].get("podIP")
                if name in names and name not in asked and address and "deletionTimestamp" not in pod["metadata"]:
                    asked[name] = asyncio.create_task(_answered(address, begin))
                    if len(asked) == len(names):
                        break
            await calls
            return list(await asyncio.gather(*asked.values()))

    async def _scale(self, name: str, patch: list[dict[str, Any]]) -> None:
        await self._api.patch(_scale_of(name), patch, JSON_PATCH)

    async def _to_sleep(self, name: str) -> None:
        if name.startswith("hand"):
            await self._scale(name, [{"op": "replace", "path": "/spec/replicas", "value": 0}])
            return
        now = datetime.now(UTC).isoformat()
        what = {"metadata": {"annotations": {COMMAND_ANNOTATION: f"sleep@{now}"}}}
        with contextlib.suppress(ApiError):  # a newly labeled Service has none yet
            await self._api.patch(path(API_VERSION, PLURAL, NAMESPACE, name), what, MERGE_PATCH)

    async def _awake(self, names: list[str]) -> list[str]:
        """Return the services that are, or may be, awake."""
        services = json.loads(await self._api.get(path(API_VERSION, PLURAL, NAMESPACE)))["items"]
        asleep = {one["metadata"]["name"] for one in services if one.get("status", {}).get("state") == "ScaledToZero"}
        deployments = json.loads(await self._api.get(path("apps/v1", "deployments", NAMESPACE)))["items"]
        asleep |= {
            name
            for one in deployments
            if (name := one["metadata"]["name"]).startswith("hand") and not one["spec"]["replicas"]
        }
        return [name for name in names if name not in asleep]

    async def _pods(self, names: list[str]) -> bool:
        """Return whether any of the services has pods."""
        pods = json.loads(await self._api.get(path("v1", "pods", NAMESPACE)))["items"]
        return any(pod["metadata"]["labels"]["app"] in names for pod in pods)


def _parts(name: str, replicas: int) -> list[dict[str, Any]]:
    """Return a workload without a grace period. Those that start slowly have a readiness probe."""
    container: dict[str, Any] = {
        "name": "web",
        "image": "localhost/web:test",
        "ports": [{"name": "http", "containerPort": 8080}],
    }
    probe = PROBES.get(name.partition("-")[2].rpartition("-")[0])
    if "slow" in name:
        probe = {"httpGet": {"port": "http"}, "periodSeconds": PROBE_PERIOD_SECONDS}
    if probe:
        container["env"] = [{"name": "DELAY", "value": SLOW_START}]
        container["readinessProbe"] = probe
    made = workload("Deployment", name, container, replicas)
    made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    return [made, web(name)[1]]


def _scale_of(name: str) -> str:
    return path("apps/v1", "deployments", NAMESPACE, name, "scale")


async def _answered(address: str, begin: float) -> float:
    """Poll a pod every millisecond until it answers; return the seconds."""
    while True:
        with contextlib.suppress(OSError):
            await _ask(address, 8080, "by.hand")
            return time.perf_counter() - begin
        await asyncio.sleep(0.001)


async def _since(begin: float, end: asyncio.Task[float]) -> float:
    return await end - begin


async def _ask(address: str, port: int, host: str) -> bytes:
    """Send one request, and return the answer. Raises `OSError` if it is lost."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    if b" 200 " not in answer[:20]:
        raise ConnectionError(f"{host}: {answer[:300].decode(errors='replace') or 'no answer'}")
    return answer


async def one_by_one(cold: Cold, slow: bool = False) -> list[Row]:
    """Measure single cold starts, by default of programs that start at once."""
    (name,), (hand,) = (cold.make(f"{kind}-slow" if slow else kind, 1) for kind in ("web", "hand"))
    measured, floor, rounds = [], [], SLOW_ROUNDS if slow else ROUNDS
    for number in range(rounds + 1):
        await cold.rest([name, hand])
        through = await cold.through_zenvoy(name)
        await cold.rest([name, hand])
        (beside,) = await cold.by_hand([hand])
        say(f"cluster: {number}: {through * 1000:.0f} ms through zenvoy, {beside * 1000:.0f} ms by hand")
        if number:
            # Discard the first of both, which differs from all others.
            measured.append(through * 1000)
            floor.append(beside * 1000)
    middle = statistics.median
    what, most = f"cold start of a pod, median of {rounds}", MAX_RATIO
    if slow:
        what, most = f"{what}, readiness probed every {PROBE_PERIOD_SECONDS} s", MAX_RATIO_OF_SLOW
    return [Row(what, middle(measured), "ms", "scale call to its first answer", middle(floor), max_ratio=most)]


async def by_probe(cold: Cold) -> list[Row]:
    """Measure single cold starts of programs that listen late, for each kind and period of readiness probe."""
    names = [name for kind in PROBES for name in cold.make(f"web-{kind}", 1)]
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for number in range(PROBED_ROUNDS + 1):
        await cold.rest(names)
        # One wake after the other; then all pods become ready at the pace of the kubelet.
        wakes = {name: await cold.probed(name) for name in names}
        for name, (answered, listening, ready) in wakes.items():
            times = (answered, listening, await ready)
            listed = ", ".join(f"{seconds * 1000:.0f} ms" for seconds in times)
            say(f"cluster: {number}: {name}: answered, listening, ready after {listed}")
            if number:
                found[name].append(times)
    return [row for kind, name in zip(PROBES, names, strict=True) for row in _probed_rows(kind, found[name])]


def _probed_rows(kind: str, rounds: list[tuple[float, float, float]]) -> list[Row]:
    answered, listening, ready = (statistics.median(each) * 1000 for each in zip(*rounds, strict=True))
    what = f"program that listens after {SLOW_START}, probe {kind}, median of {PROBED_ROUNDS}"
    ratio = statistics.median(one / own for one, own, _ in rounds)
    return [
        Row(what, answered, "ms", "until it answers its probe", listening, max_ratio=MAX_RATIO_OF_SLOW, spread=ratio),
        Row(what, answered, "ms", "until Kubernetes calls it ready", ready),
    ]


async def many_at_once(cold: Cold, count: int) -> list[Row]:
    """Measure simultaneous cold starts."""
    names, hands = cold.make("web", count), cold.make("hand", count)
    measured: list[list[float]] = []
    by_hand: list[list[float]] = []
    lost = 0
    for number in range(MANY_ROUNDS):
        await cold.rest(names + hands)
        answers = await asyncio.gather(*(cold.through_zenvoy(name) for name in names), return_exceptions=True)
        measured.append([answer for answer in answers if isinstance(answer, float)])
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        lost += len(failed)
        for failure in failed[:3]:
            say(f"cluster: lost: {failure!r}")
        await cold.rest(names + hands)
        by_hand.append(await cold.by_hand(hands))
        say(f"cluster: round {number + 1} of {MANY_ROUNDS} with {count}")
    half, last = _usual(measured, statistics.median), _usual(measured, max)
    all_by_hand, what = _usual(by_hand, max), f"{count} at once"
    return [
        Row(f"{what}, median", half, "s", "scaling them all by hand", all_by_hand, max_ratio=MAX_RATIO_OF_MANY),
        Row(f"{what}, median", half, "s", "the median by hand", _usual(by_hand, statistics.median)),
        Row(f"{what}, the slowest", last, "s", "the slowest by hand", all_by_hand),
        Row(f"{what}, lost", lost, "", most=0),
    ]


def _usual(rounds: list[list[float]], of: Callable[[list[float]], float]) -> float:
    """Return the median round."""
    return statistics.median(of(each) for each in rounds)


async def measure(release: Release, only_readiness: bool) -> list[Row]:
    """Return all rows, or only those of readiness, measured on a node with images and zenvoy."""
    shop = Shop(release.node, NAMESPACE)
    release.node.kubectl("create", "namespace", NAMESPACE)
    api = await connect(release.node.kubeconfig)
    try:
        cold = Cold(shop, api, release.address)
        rows = await by_probe(cold)
        if only_readiness:
            return rows
        rows += [*await one_by_one(cold), *await one_by_one(cold, slow=True)]
        for count in MANY:
            say(f"cluster: {count} at once")
            rows += await many_at_once(cold, count)
        return rows
    finally:
        await api.close()
        release.node.kubectl("delete", "namespace", NAMESPACE, "--timeout=300s", timeout=320)


@contextlib.contextmanager
def node() -> Iterator[harness.Cluster]:
    """Provide an existing node, or one that is stopped at the end of the block."""
    if own := harness.own():
        yield own
        return
    with tempfile.TemporaryDirectory() as folder:
        say("cluster: starting a node")
        cluster = harness.start(Path(folder) / "state", "--node")
        try:
            yield cluster
        finally:
            cluster.down()


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with node() as cluster:
        say("cluster: building and loading images")
        load_images(cluster)
        release = Release(cluster)
        try:
            release.install()
            rows = asyncio.run(measure(release, only_readiness=sys.argv[1:] == ["readiness"]))
        finally:
            release.uninstall()
    print(table.as_text({"cluster": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
