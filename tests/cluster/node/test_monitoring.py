"""Prometheus with the chart's monitors and rules: samples, verdicts and alerts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from grafana.build import BOARDS
from grafana.control_plane import LEADER, NO_PODS
from grafana.fleet_wakes import NO_REQUESTS
from grafana.queries import IN_A_CLUSTER, NO_API_SERVER
from reconciler.metrics.definitions import CLUSTER_PARTS
from tests.cluster.harness import Cluster
from tests.cluster.monitoring import Discovery, jobs_of, write_rules
from tests.cluster.release import CHART, PATIENCE_SECONDS, ROOT, SYSTEM, WEB, Release, Shop, web
from tests.e2e.harness import until as until_within
from tests.grafana.answers import Prometheus as Answers
from tests.grafana.answers import Span, Viewer, filled
from tests.prometheus.parts import Alertmanager, Prometheus, Webhook

pytestmark = [pytest.mark.prometheus, pytest.mark.alertmanager]
INTERVAL = "1s"
STUCK = "ServiceStuckWaking"
MONITORED = {
    "monitoring.serviceMonitor.enabled": "true",
    "monitoring.prometheusRule.enabled": "true",
    "prometheus.scrapeInterval": INTERVAL,
}
QUICK = {"idle_after": "4s"}
OF_A_CLUSTER = (NO_REQUESTS, NO_API_SERVER, NO_PODS, IN_A_CLUSTER)
"""Why panels are empty anywhere else."""
REQUESTS = {"cpu": "10m", "memory": "16Mi"}


def until(what: str, check: Any) -> Any:
    return until_within(what, check, PATIENCE_SECONDS)


@dataclass
class Monitored:
    """zenvoy that judges by Prometheus, and who watches it."""

    zenvoy: Release
    prometheus: Prometheus
    webhook: Webhook

    def value(self, query: str) -> float | None:
        """Return the value of the only series; None while there is none."""
        rows = self.rows(query)
        assert len(rows) < 2, rows
        return float(rows[0]["value"][1]) if rows else None

    def rows(self, query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.prometheus.ask("/api/v1/query", query=query)["data"]["result"]
        return rows

    def leader(self) -> str:
        """Return the leader's pod, as Prometheus sees it."""
        return str(until("a replica leads", lambda: self.rows("zenvoy_leader == 1"))[0]["metric"]["pod"])


@pytest.fixture(scope="module")
def monitored(zenvoy: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    node, folder = zenvoy.node, tmp_path_factory.mktemp("prometheus")
    options = [option for key, value in MONITORED.items() for option in ("--set", f"{key}={value}")]
    text = node.run("helm", "template", "zenvoy", CHART, "-n", SYSTEM, "--kube-version", "1.34.0", *options)
    rendered = [one for one in yaml.safe_load_all(text) if one]
    write_rules(rendered, folder / "rules.yaml")
    with ExitStack() as stack:
        discovery = Discovery(node, SYSTEM)
        stack.callback(discovery.close)
        webhook = Webhook()
        stack.callback(webhook.close)
        alertmanager = Alertmanager(folder, webhook.url)
        stack.callback(alertmanager.close)
        alertmanager.start()
        prometheus = Prometheus(
            folder,
            {},
            alertmanager,
            jobs=jobs_of(rendered, discovery),
            rules=folder / "rules.yaml",
            interval=INTERVAL,
            host=address_of(node),
        )
        stack.callback(prometheus.close)
        prometheus.start()
        # Install again: replicas that an upgrade replaces are missing for minutes, in which nothing is put to sleep.
        judging = {
            "prometheus.url": prometheus.url,
            "prometheus.scrapeInterval": INTERVAL,
            "monitoring.dashboards.enabled": "true",
        }
        release = Release(node, {**zenvoy.values, **judging})
        zenvoy.uninstall()
        stack.callback(zenvoy.install)
        release.install()
        stack.callback(release.uninstall)
        one = Monitored(release, prometheus, webhook)
        until("samples are complete", lambda: one.value("max(zenvoy_sample_complete) == 1"))
        yield one


def address_of(node: Cluster) -> str:
    """Return the address at which pods reach this machine."""
    said = '{.items[0].status.addresses[?(@.type=="InternalIP")].address}'
    return node.kubectl("get", "nodes", "-o", f"jsonpath={said}")


def asleep(shop: Shop, monitored: Monitored, **annotations: str) -> str:
    """Create a service, wait until Prometheus shows it asleep, and return its name."""
    deployment, service = web("web")
    deployment["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": REQUESTS}
    shop.apply(deployment, service)
    shop.until_rolled_out("web")
    shop.label("web", **{**QUICK, **annotations})
    shop.until("web", "ScaledToZero")
    name = f"{shop.namespace}/web"
    until("Prometheus says so", lambda: state(monitored, name) == "ScaledToZero")
    return name


def state(monitored: Monitored, service: str) -> str | None:
    """Return the state that Prometheus has; None while it has none, or two as the leader changes."""
    rows = monitored.rows(f'zenvoy_service_state{{service="{service}"}} == 1')
    return str(rows[0]["metric"]["state"]) if len(rows) == 1 else None


def test_monitoring_scrapes_every_pod(monitored: Monitored) -> None:
    pods = json.loads(monitored.zenvoy.node.kubectl("get", "pods", "-n", SYSTEM, "-o", "json"))["items"]
    parts = {pod["metadata"]["name"]: pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}

    def seen(query: str) -> set[str]:
        return {row["metric"]["pod"] for row in monitored.rows(query)}

    reconcilers = {pod for pod, part in parts.items() if part == "reconciler"}
    proxies = {pod for pod, part in parts.items() if part == "proxy"}
    assert len(reconcilers) == 2
    until("all are up", lambda: not monitored.rows("up == 0") and seen("up") == reconcilers | proxies)
    # Each pod has several jobs, whose first scrapes come one after the other.
    until("all replicas are seen", lambda: seen("zenvoy_leader") == reconcilers)
    until("all proxies are seen", lambda: seen("envoy_server_uptime") == seen("zenvoy_holder_stream_up") == proxies)
    until("one leads", lambda: monitored.value("sum(zenvoy_leader)") == 1)
    until("the leader samples", lambda: seen("zenvoy_sample_complete") == {monitored.leader()})


def test_monitoring_shows_leader_and_api_requests(monitored: Monitored) -> None:
    who, calls, _ = LEADER.panels
    leader = monitored.leader()

    def callers(method: str) -> set[str]:
        return {
            row["metric"]["pod"] for row in monitored.rows(f'zenvoy_api_calls_total{{method="{method}", code="200"}}')
        }

    leading = {row["metric"]["pod"]: row["value"][1] for row in monitored.rows(who.queries[0].expr)}
    assert leading.pop(leader) == "1"
    assert list(leading.values()) == ["0"]
    until("both list and watch", lambda: callers("GET") == callers("WATCH") == {leader, *leading})
    until("it renews the Lease", lambda: leader in callers("PUT"))
    asked = filled(calls.queries[0].expr, {}, Span(0.0, 60.0, 1.0), scrape_interval=1.0)
    until(
        "the dashboard shows them", lambda: {row["metric"]["method"] for row in monitored.rows(asked)} >= {"GET", "PUT"}
    )


def test_service_sleeps_and_wakes_by_prometheus(monitored: Monitored, shop: Shop) -> None:
    name = asleep(shop, monitored)
    assert monitored.rows(f'zenvoy_service_state{{service="{name}"}}')[0]["metric"]["namespace"] == shop.namespace
    shop.idles_after("web", "10m")  # so that Prometheus scrapes it awake

    assert monitored.zenvoy.curl(shop.host("web")).status == 200

    until("Prometheus says so", lambda: state(monitored, name) in ("Active", "Idle"))
    woken = f'zenvoy_service_wakes_total{{service="{name}", result="woken"}}'
    until("the wake is counted", lambda: monitored.value(woken) == 1)
    part = f'zenvoy_service_last_wake_part_duration_seconds{{service="{name}"}}'

    def reported() -> set[str] | None:
        parts = {row["metric"]["part"] for row in monitored.rows(part)}
        return parts if parts >= {"signal", "ready"} else None

    assert until("its parts are reported", reported) <= set(CLUSTER_PARTS)
    for resource, asked in (("cpu_core", 0.01), ("memory_byte", 16 * 2**20)):
        slept = f'zenvoy_service_slept_{resource}_seconds_total{{service="{name}"}}'
        replicas = f'zenvoy_service_slept_replica_seconds_total{{service="{name}"}} > 0'
        until(
            "what is not run is counted",
            lambda query=f"{slept} / ({replicas})", asked=asked: monitored.value(query) == pytest.approx(asked),
        )
    explain = (Path(sys.executable).with_name("zenvoy"), "explain", "web", "-n", shop.namespace, "-o", "json")
    assert monitored.prometheus.url in monitored.zenvoy.node.run(*explain)
    shop.idles_after("web", QUICK["idle_after"])
    shop.until("web", "ScaledToZero")


def test_ignored_requests_are_answered_without_a_wake(monitored: Monitored, shop: Shop) -> None:
    name = asleep(shop, monitored, ignore_user_agents="Prometheus/,kube-probe/", ignore_answer="200 it sleeps")
    probe = ("-A", "Prometheus/2.42")

    assert monitored.zenvoy.curl(shop.host("web"), "/", *probe).body.strip() == "it sleeps"
    assert shop.state("web") == "ScaledToZero"
    shop.idles_after("web", "10m")  # so that it is awake for the next probe
    assert monitored.zenvoy.curl(shop.host("web")).status == 200
    assert monitored.zenvoy.curl(shop.host("web"), "/", *probe).body.split()[1] == "GET", "awake, it answers itself"
    shop.idles_after("web", QUICK["idle_after"])

    def sleeps() -> bool:
        monitored.zenvoy.curl(shop.host("web"), "/", *probe)
        return state(monitored, name) == "ScaledToZero"

    until("it sleeps under probes", sleeps)


def test_alert_for_an_unpullable_image_resolves(monitored: Monitored, shop: Shop) -> None:
    name = asleep(shop, monitored, wake_timeout="5s", hold_timeout="6s")
    shop.kubectl("set", "image", "deployment/web", "web=localhost/nowhere:1")
    stalled = f'zenvoy_service_stalled_info{{service="{name}"}}'
    over = Event()

    def repeated() -> set[int]:
        statuses = set()
        while not over.is_set():  # without a client, the wake ends
            statuses.add(monitored.zenvoy.curl(shop.host("web")).status)
        return statuses

    with ThreadPoolExecutor() as clients:
        waiting = clients.submit(repeated)
        try:
            alerts = until("the webhook is called", lambda: monitored.webhook.received(STUCK, "firing"))
            until("it is stalled", lambda: monitored.value(f'zenvoy_service_stalled{{service="{name}"}}') == 1)
            reasons = ["ImagePullBackOff"]
            until("the reason", lambda: [row["metric"]["reason"] for row in monitored.rows(stalled)] == reasons)
        finally:
            over.set()
        assert [(one["labels"]["service"], one["labels"]["namespace"]) for one in alerts] == [(name, shop.namespace)]
        assert alerts[0]["annotations"]["summary"] == f"{name} does not wake"
        assert waiting.result() == {503}

    shop.kubectl("set", "image", "deployment/web", f"web={WEB}")

    until("the webhook is called", lambda: monitored.webhook.received(STUCK, "resolved"))
    until("it is not stalled", lambda: not monitored.rows(stalled))
    assert monitored.zenvoy.curl(shop.host("web")).status == 200


def test_monitoring_continues_with_a_new_leader(monitored: Monitored, shop: Shop) -> None:
    name = asleep(shop, monitored)
    before = monitored.leader()
    slept = f'zenvoy_service_slept_replica_seconds_total{{service="{name}", pod!="{before}"}}'
    assert monitored.value(slept) is None

    monitored.zenvoy.node.kubectl("delete", "pod", "-n", SYSTEM, before, "--wait=false")

    until("another leads", lambda: monitored.value(f'sum(zenvoy_leader{{pod!="{before}"}}) == 1'))
    until("it is reported", lambda: monitored.value(slept))
    until("it is asleep again", lambda: state(monitored, name) == "ScaledToZero")
    # Alerts for services of other tests may take time to resolve.
    fires = {alert for alert, service in monitored.prometheus.firing() if service in ("", name)}
    assert not fires & {STUCK, "NoLeader", "ControllerDown", "HolderDisconnected", "ServiceFlapping"}


def test_monitoring_dashboards_are_installed(monitored: Monitored) -> None:
    said = monitored.zenvoy.node.kubectl("get", "configmaps", "-n", SYSTEM, "-l", "grafana_dashboard=1", "-o", "json")
    shipped = {name: text for one in json.loads(said)["items"] for name, text in one["data"].items()}

    built = (ROOT / "grafana" / "dashboards").glob("*.json")
    assert shipped == {file.name: file.read_text() for file in built}


def test_monitoring_rules_are_loaded(monitored: Monitored) -> None:
    groups = monitored.prometheus.ask("/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert {rule["name"] for rule in rules} >= {STUCK, "NoLeader", "ControllerDown"}
    assert {rule["health"] for rule in rules} == {"ok"}


def test_monitoring_every_panel_has_data(monitored: Monitored, shop: Shop) -> None:
    began, name = time.time(), asleep(shop, monitored)
    assert monitored.zenvoy.curl(shop.host("web")).status == 200

    def missing() -> list[str]:
        variables = {"namespace": ".*", "services": ".*", "service": name}
        sight = Viewer(Answers(monitored.prometheus.url), Span(began, time.time(), 1.0), variables, 1.0)
        return [
            f"{board.uid}, {panel.title}: {query.expr}"
            for board in BOARDS
            for panel in board.panels()
            for query, found in zip(panel.queries, sight.answers(panel), strict=True)
            if not found and query.may_be_empty in ("", *OF_A_CLUSTER)
        ]

    try:
        until("all that may not be empty has data", lambda: not missing())
    except AssertionError as error:
        raise AssertionError(f"{error}; empty are {missing()}") from None
