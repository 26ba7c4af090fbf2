"""A real `zenvoy up` with Prometheus as its source of traffic, and its metrics."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import Start
from tests.e2e.harness import Zenvoy, server
from tests.e2e.harness import until as until_within
from tests.prometheus.conftest import Ports
from tests.prometheus.parts import INTERVAL, PATIENCE_SECONDS


def until(what: str, check: Callable[[], Any]) -> Any:
    return until_within(what, check, PATIENCE_SECONDS)


def judged(zenvoy: Start, ports: Ports, url: str, *options: str, **service: Any) -> Zenvoy:
    """Start zenvoy with the service `web` and the Prometheus at `url`; return after the first complete sample."""
    asked = (*ports.options, "--prometheus", url, "--scrape-interval", INTERVAL, *options)
    up = zenvoy({"name": "web", "command": server("http_echo"), **service}, options=asked)
    until("a sample is complete", lambda: value(ports.metrics, "zenvoy_sample_complete"))
    return up


def page(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
        return str(answer.read().decode())


def value(address: str, name: str, **labels: str) -> float:
    """Return the current value of one metric."""
    series = name + ("{" + ",".join(f'{key}="{label}"' for key, label in labels.items()) + "}" if labels else "")
    found = re.search(rf"^{re.escape(series)} (\S+)$", page(address, "/metrics"), re.MULTILINE)
    assert found, f"{series} is not exported"
    return float(found[1])
