"""Rollouts and removal of zenvoy while it is in use: no request is lost, and services sleep and wake afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND
from tests.cluster.harness import ToolFailed
from tests.cluster.release import PATIENCE_SECONDS, SYSTEM, WEB, Release, Shop, curl, service, web
from tests.e2e.harness import until

CLIENTS = 2


class Clients:
    """A client that sends requests continuously, each on its own connection, and records the failures."""

    def __init__(self, release: Release, host: str) -> None:
        self.url, self.host = f"http://{release.address}:10000/", host
        self.answers, self.lost = 0, []  # type: int, list[str]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    @contextmanager
    def asking(self) -> Iterator[Clients]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.05):
            try:
                answer = curl(self.url, "-H", f"Host: {self.host}")
            except ToolFailed as error:
                self.lost.append(str(error))
                continue
            self.answers += 1
            if answer.status != 200:
                self.lost.append(f"{answer.status} {answer.body}")


@pytest.mark.parametrize("part", ["reconciler", "proxy"])
def test_rollout_loses_no_request_and_services_sleep_again(zenvoy: Release, shop: Shop, part: str) -> None:
    shop.apply(*web("busy"), *web("asleep"))
    shop.until_rolled_out("busy", "asleep")
    shop.label("busy", idle_after="10m")
    shop.label("asleep", idle_after="2s")
    shop.until("asleep", "ScaledToZero")
    until("busy is answered", lambda: zenvoy.curl(shop.host("busy")).status == 200)
    with Clients(zenvoy, shop.host("busy")).asking() as clients:
        zenvoy.node.kubectl("rollout", "restart", "-n", SYSTEM, f"deployment/zenvoy-{part}")
        # It sleeps, and is asked for, while there are replicas of both kinds.
        woken = zenvoy.curl(shop.host("asleep"))
        zenvoy.node.kubectl(
            "rollout", "status", "-n", SYSTEM, f"deployment/zenvoy-{part}", "--timeout=240s", timeout=250
        )
        until("those that went are gone", lambda: _pods(zenvoy, part) == 2, PATIENCE_SECONDS)
    assert woken.status == 200
    assert clients.answers > 20
    assert not clients.lost
    # The pods that ended keep nothing awake, and nothing asks the controller about them.
    shop.until("asleep", "ScaledToZero")


def test_proxy_replaced_by_a_daemon_set_loses_no_request(replaced: Release, shop: Shop) -> None:
    """The pods of a Deployment terminate while no pod of the DaemonSet is ready yet."""
    shop.apply(*web("busy"), *web("asleep"))
    shop.until_rolled_out("busy", "asleep")
    shop.label("busy", idle_after="10m")
    shop.label("asleep", idle_after="2s")
    # The machine may be slow; they accept connections until the new pod does.
    replaced.upgrade(**{"proxy.drain.settleSeconds": "60", "proxy.drain.seconds": "90"})
    shop.until_asleep("asleep")
    shop.idles_after("asleep", "10m")
    until("busy is answered", lambda: replaced.curl(shop.host("busy")).status == 200)

    with Clients(replaced, shop.host("busy")).asking() as clients:
        replaced.upgrade(**{"proxy.kind": "DaemonSet"})
        until("no other pod is left", lambda: replaced.owners("proxy") == {"DaemonSet"}, PATIENCE_SECONDS)
        woken = replaced.curl(shop.host("asleep"))
    assert woken.status == 200
    assert clients.answers > 20
    assert not clients.lost


def test_wake_continues_during_a_rollout_of_zenvoy(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("slow", replicas=0, READY="503"))
    shop.label("slow", idle_after="10m", hold_timeout="10m", wake_timeout="10m")
    shop.until("slow", "ScaledToZero")
    answers = []
    client = threading.Thread(target=lambda: answers.append(zenvoy.curl(shop.host("slow"), seconds=600)))
    client.start()
    try:
        shop.until("slow", "Waking")
        # Returns once they are gone: another leader continues.
        zenvoy.node.kubectl("delete", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=reconciler")
    finally:
        shop.make_ready("slow")
        client.join()
    assert [answer.status for answer in answers] == [200], answers


def test_uninstall_restores_sleeping_services(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("web", replicas=2), *web("other"))
    for name in ("web", "other"):
        shop.until_rolled_out(name)
        shop.label(name, idle_after="2s")
    shop.apply(*untouchable("old"))
    shop.until("web", "ScaledToZero")
    shop.until("other", "ScaledToZero")
    shop.until("old", "Active")

    zenvoy.uninstall()

    try:
        assert [shop.replicas("web"), shop.replicas("other")] == [2, 1]
        for name in ("web", "other", "old"):
            # The remaining objects depend on nothing that is gone.
            shop.kubectl("delete", "ssvc", name, "--ignore-not-found", "--timeout=120s")
        shop.until_rolled_out("web")
    finally:
        zenvoy.install()


def untouchable(name: str) -> list[Mapping[str, Any]]:
    """Return a ScaledService whose target is of a kind that the chart gives zenvoy no right to."""
    container = {"name": "web", "image": WEB}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"app": name}, "template": template}
    target = {"apiVersion": "v1", "kind": "ReplicationController", "name": name}
    return [
        {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name}, "spec": spec},
        service(name, 80, "http"),
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name},
            "spec": {"scaleTargetRef": target, "idleAfter": "2s"},
        },
    ]


def _pods(release: Release, part: str) -> int:
    label = f"app.kubernetes.io/component={part}"
    return len(release.node.kubectl("get", "pods", "-n", SYSTEM, "-l", label, "-o", "name").splitlines())
