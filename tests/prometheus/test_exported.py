"""The metrics that a real `zenvoy up` exports over HTTP, in both formats."""

from __future__ import annotations

import re
import subprocess
import urllib.request

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import request, server, until
from tests.prometheus.conftest import Ports

pytestmark = [pytest.mark.envoy, pytest.mark.prometheus]
OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
"""The Accept header of Prometheus 2.42."""


def scraped(address: str, accept: str = "text/plain") -> str:
    asked = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.headers["Content-Type"].split(";")[0] == accept.split(";")[0]
        return str(answer.read().decode())


def test_metrics_after_a_wake_are_valid_in_both_formats(zenvoy: Start, ports: Ports) -> None:
    up = zenvoy({"name": "web", "command": server("http_echo")}, options=ports.options)
    request(up.http_port, "web", "/hello")
    up.wait_state("web", "ScaledToZero")

    for address in (ports.metrics, ports.holder):
        text = scraped(address)
        assert 'service="web"' in text
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert scraped(ports.holder, OPENMETRICS).endswith("# EOF\n")
    text = scraped(ports.metrics, OPENMETRICS)
    assert text.endswith("# EOF\n")
    assert re.search(r'^zenvoy_wake_duration_seconds_bucket\{le="[^"]+"\} 1.0 # \{service="web"\}', text, re.MULTILINE)
    assert re.search(r'^zenvoy_xds_acks_total\{envoy="local"\} [1-9]', text, re.MULTILINE)
    assert re.search(r'^zenvoy_service_wakes_total\{service="web",result="woken"\} 1$', text, re.MULTILINE)
    waited = re.search(r'^zenvoy_service_waited_seconds_total\{service="web"\} (\S+)', text, re.MULTILINE)
    assert waited and float(waited[1]) > 0


def test_removed_service_has_no_series(zenvoy: Start, ports: Ports) -> None:
    web, gone = ({"name": name, "command": server("http_echo")} for name in ("web", "gone"))
    up = zenvoy(web, gone, options=ports.options)
    assert 'service="gone"' in scraped(ports.metrics)

    up.write({"services": [web]})

    until("its series are gone", lambda: 'service="gone"' not in scraped(ports.metrics))
    assert 'service="web"' in scraped(ports.metrics)
