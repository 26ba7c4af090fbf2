"""A Prometheus configuration like the one that the Prometheus operator makes of the chart's monitors and rules.

Rule: the labels are those that the operator gives to targets, and honorLabels counts as there, so that what is seen
here is what users of kube-prometheus-stack see. Debian's Prometheus knows nothing of Kubernetes; it is reported targets
over HTTP, with the labels that its own discovery would give them.
https://github.com/prometheus-operator/prometheus-operator/blob/main/pkg/prometheus/promcfg.go
https://prometheus.io/docs/prometheus/latest/configuration/configuration/#endpointslice
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness import Cluster, ToolFailed
from tests.e2e.harness import LOCAL

REFRESH_SECONDS = 2
_META = "__meta_kubernetes_"
OPERATORS_LABELS = {
    f"{_META}namespace": "namespace",
    f"{_META}service_name": "service",
    f"{_META}pod_name": "pod",
}


class Discovery:
    """The ports of all EndpointSlices of a namespace, for `http_sd_configs`."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._lock, self._targets, self._asked_at = threading.Lock(), b"[]", 0.0
        discovery = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = discovery.targets()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer((LOCAL, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://{LOCAL}:{self._server.server_address[1]}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def targets(self) -> bytes:
        """Return the recent targets; the last known ones while the API server does not answer."""
        with self._lock:
            if time.monotonic() - self._asked_at > REFRESH_SECONDS / 2:
                try:
                    said = self._cluster.kubectl("get", "endpointslices", "-n", self._namespace, "-o", "json")
                    self._targets = json.dumps(
                        [one for item in json.loads(said)["items"] for one in _of(item)]
                    ).encode()
                except ToolFailed:
                    pass
                self._asked_at = time.monotonic()
            return self._targets


def _of(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the targets of one EndpointSlice, which has the labels of its Service."""
    meta = item["metadata"]
    labels = {f"{_META}service_label_{_as_name(key)}": value for key, value in meta["labels"].items()}
    labels[f"{_META}namespace"] = meta["namespace"]
    labels[f"{_META}service_name"] = meta["labels"]["kubernetes.io/service-name"]
    for endpoint in item["endpoints"] or ():
        for port in item["ports"] or ():
            said = {f"{_META}endpointslice_port_name": port["name"], f"{_META}pod_name": endpoint["targetRef"]["name"]}
            yield {"targets": [f"{endpoint['addresses'][0]}:{port['port']}"], "labels": {**labels, **said}}


def _as_name(key: str) -> str:
    return re.sub("[^a-zA-Z0-9_]", "_", key)


def jobs_of(rendered: Sequence[Mapping[str, Any]], discovery: Discovery) -> list[dict[str, Any]]:
    """Return the scrape jobs of all ServiceMonitors."""
    monitors = [one for one in rendered if one["kind"] == "ServiceMonitor"]
    return [
        _job(f"{monitor['metadata']['name']}/{number}", monitor["spec"], endpoint, discovery)
        for monitor in monitors
        for number, endpoint in enumerate(monitor["spec"]["endpoints"])
    ]


def write_rules(rendered: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the groups of all PrometheusRules to a rule file."""
    groups = [group for one in rendered if one["kind"] == "PrometheusRule" for group in one["spec"]["groups"]]
    assert groups
    file.write_text(yaml.safe_dump({"groups": groups}))


def _job(name: str, spec: Mapping[str, Any], endpoint: Mapping[str, Any], discovery: Discovery) -> dict[str, Any]:
    selected = {
        f"{_META}service_label_{_as_name(key)}": value for key, value in spec["selector"]["matchLabels"].items()
    }
    selected[f"{_META}endpointslice_port_name"] = endpoint["port"]
    kept = [{"source_labels": [label], "regex": value, "action": "keep"} for label, value in selected.items()]
    given = [{"source_labels": [label], "target_label": target} for label, target in OPERATORS_LABELS.items()]
    given.append({"source_labels": [f"{_META}service_name"], "target_label": "job"})
    given.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    return {
        "job_name": name,
        "honor_labels": endpoint.get("honorLabels", False),
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint.get("scrapeTimeout", endpoint["interval"]),
        "metrics_path": endpoint["path"],
        "params": endpoint.get("params", {}),
        "http_sd_configs": [{"url": discovery.url, "refresh_interval": f"{REFRESH_SECONDS}s"}],
        "relabel_configs": [*kept, *given, *map(_relabelling, endpoint.get("relabelings", ()))],
        "metric_relabel_configs": [_relabelling(one) for one in endpoint.get("metricRelabelings", ())],
    }


def _relabelling(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a relabelling in the spelling of Prometheus."""
    return {re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", key): value for key, value in one.items()}
