"""An alert from a stuck service to a webhook, with a real Envoy, zenvoy, Prometheus, and Alertmanager."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import gated, request, server, until
from tests.prometheus.conftest import Ports, StartPrometheus
from tests.prometheus.parts import PATIENCE_SECONDS, Alertmanager, Webhook

pytestmark = [pytest.mark.envoy, pytest.mark.prometheus, pytest.mark.alertmanager]
STUCK = "ServiceStuckWaking"


def test_alert_fires_until_the_stuck_service_starts(
    zenvoy: Start, ports: Ports, prometheus: StartPrometheus, alertmanager: Alertmanager, webhook: Webhook
) -> None:
    watching = prometheus(alertmanager)
    up = zenvoy(
        {"name": "stuck", "command": gated(server("http_echo")), "wakeTimeout": "2s", "holdTimeout": "10m"},
        {"name": "fine", "command": server("http_echo")},
        options=ports.options,
    )
    with ThreadPoolExecutor() as clients:
        waiting = clients.submit(request, up.http_port, "stuck", "/hello", timeout=600)
        try:
            assert request(up.http_port, "fine", "/hello").status == 200
            alert = until("the webhook is called", lambda: webhook.received(STUCK, "firing"), PATIENCE_SECONDS)[0]
            assert alert["labels"]["service"] == "stuck"
            assert alert["labels"]["severity"] == "critical"
            assert alert["annotations"]["summary"] == "stuck does not wake"
            assert alert["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{STUCK}.md")

            since = watching.firing()[STUCK, "stuck"]
            with up.without("reconciler"):
                until("its scrape fails", lambda: watching.query('up{job="zenvoy"} == 0'), PATIENCE_SECONDS)
            until("it is back", lambda: watching.query("zenvoy_ready == 1"), PATIENCE_SECONDS)
            assert watching.firing()[STUCK, "stuck"] == since, "a restart neither resolves nor re-fires the alert"
            stalled = 'zenvoy_service_stalled_info{service="stuck", reason="NotReady"} == 1'
            until("the cause is exported after the restart", lambda: watching.query(stalled), PATIENCE_SECONDS)
            assert not webhook.received(STUCK, "resolved")
        finally:
            up.open_gate()
        assert waiting.result().status == 200
    resolved = until("the webhook is called", lambda: webhook.received(STUCK, "resolved"), PATIENCE_SECONDS)
    assert not watching.query("zenvoy_service_stalled_info")
    assert [alert["labels"]["service"] for alert in resolved] == ["stuck"]
    assert {alert["labels"]["service"] for alert in webhook.received(STUCK, "firing")} == {"stuck"}
