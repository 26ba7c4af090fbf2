"""Capture on a node: clients call the plain Service, as before zenvoy, and lose nothing at any step."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.harness import ToolFailed
from tests.cluster.node.test_demo import takes_connections
from tests.cluster.release import PATIENCE_SECONDS, Release, Shop, curl, postgres, psql, web
from tests.e2e.harness import until


class Caller:
    """A client that opens a new connection to an address for each request, and counts what it gets."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.answers: Counter[str] = Counter()
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(0.05):
            connection = http.client.HTTPConnection(self._address, 80, timeout=PATIENCE_SECONDS)
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                self.answers["200" if answer.status == 200 else f"{answer.status} {answer.read()!r}"] += 1
            except OSError as error:
                self.answers[repr(error)] += 1
            finally:
                connection.close()

    @contextmanager
    def calling(self) -> Iterator[Counter[str]]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self.answers
        finally:
            self._ends.set()
            thread.join()


def address(shop: Shop, name: str) -> str:
    """Return the cluster IP of a Service."""
    return str(shop.get("service", name)["spec"]["clusterIP"])


def is_known(address: str) -> bool:
    """Return whether the node leads connections to the address of a new Service to its pods."""
    try:
        return curl(f"http://{address}/").status == 200
    except ToolFailed:
        return False


def captured(shop: Shop, name: str) -> str:
    """Return the status of the condition; empty without one."""
    condition = "jsonpath={.status.conditions[?(@.type=='Captured')].status}"
    return shop.kubectl("get", "ssvc", name, "--ignore-not-found", "-o", condition)


def until_captured(shop: Shop, name: str) -> None:
    until(f"{name} is captured", lambda: captured(shop, name) == "True", PATIENCE_SECONDS)


def test_capture_and_release_lose_no_request(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("web", replicas=2))
    shop.until_rolled_out("web")
    until("the node leads to it", lambda: is_known(address(shop, "web")), PATIENCE_SECONDS)
    with Caller(address(shop, "web")).calling() as answers:
        shop.label("web", capture="proxy", idle_after="10m")
        until_captured(shop, "web")
        before = answers["200"]
        until("it answers through the proxy", lambda: answers["200"] >= before + 20, PATIENCE_SECONDS)
        shop.kubectl("label", "service", "web", "zenvoy.dev/enabled-")
        until("nothing of zenvoy is left", lambda: not shop.kubectl("get", "ssvc", "-o", "name"), PATIENCE_SECONDS)
        before = answers["200"]
        until("it answers without", lambda: answers["200"] >= before + 20, PATIENCE_SECONDS)
    assert set(answers) == {"200"}, answers
    assert shop.get("service", "web")["spec"]["selector"] == {"app": "web"}
    until("the companion is gone", lambda: shop.kubectl("get", "services", "-o", "name").split() == ["service/web"], 60)


def test_labeled_service_asleep_is_woken_by_a_plain_client(zenvoy: Release, shop: Shop) -> None:
    """A label is enough."""
    shop.apply(*web("web"))
    shop.until_rolled_out("web")
    shop.kubectl("annotate", "service", "web", "zenvoy.dev/idle-after=2s")
    shop.kubectl("label", "service", "web", "zenvoy.dev/enabled=true")
    until_captured(shop, "web")
    for _ in range(2):
        shop.until_asleep("web")
        caller = Caller(address(shop, "web"))
        with caller.calling() as answers:
            until("it answers", lambda: answers.total() >= 3, PATIENCE_SECONDS)
        assert set(answers) == {"200"}, answers


def test_captured_database_asleep_is_woken_by_psql(zenvoy: Release, shop: Shop) -> None:
    """No value of the chart opens its port: the proxies listen where zenvoy leads the Service."""
    shop.apply(*postgres("db", shop.on_disk("db")))
    shop.until_rolled_out("db", kind="statefulset")
    shop.label("db", capture="proxy", idle_after="2s", target="StatefulSet/db", protocol="tcp")
    until_captured(shop, "db")
    until("it takes connections", lambda: takes_connections(address(shop, "db")), PATIENCE_SECONDS)
    psql(address(shop, "db"), "create table t (n int); insert into t values (7)")
    shop.until_asleep("db", "statefulset")
    assert psql(address(shop, "db"), "select n from t") == "7"


def test_selector_applied_by_force_asleep_still_wakes(zenvoy: Release, shop: Shop) -> None:
    """A GitOps tool with server-side apply writes the selector of its manifest."""
    shop.apply(*web("web"))
    shop.until_rolled_out("web")
    shop.label("web", capture="proxy", idle_after="2s")
    until_captured(shop, "web")
    shop.until_asleep("web")
    manifest = (
        '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, '
        '"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}'
    )
    shop.node.kubectl(
        "apply", "-n", shop.namespace, "--server-side", "--force-conflicts", "--field-manager=flux", "-f", "-",
        given=manifest,
    )  # fmt: skip
    connection = http.client.HTTPConnection(address(shop, "web"), 80, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
    until_captured(shop, "web")
    assert "zenvoy.dev/captured" in shop.get("service", "web")["spec"]["selector"]
