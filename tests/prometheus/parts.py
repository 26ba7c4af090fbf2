"""A real Prometheus, a real Alertmanager, and a webhook, which run until `close`."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.harness import LOCAL, until
from tests.ports import free_port

INTERVAL = "250ms"
"""Interval of scrapes and of rule evaluations."""
PATIENCE_SECONDS = 60.0
RULES = Path(__file__).parents[2] / "deploy/prometheus/*.yaml"


class Server:
    """A program with an HTTP port and a readiness endpoint. It can be started again after `kill`."""

    def __init__(self, command: Sequence[str], port: int, log: Path, host: str = LOCAL) -> None:
        self.url = f"http://{host}:{port}"
        self.headers: Mapping[str, str] = {}
        self.trusted: ssl.SSLContext | None = None
        self._command, self._log = command, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(f"{self._command[0]} is ready", self._is_ready, PATIENCE_SECONDS)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    close = kill

    def signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)

    def ask(self, path: str, **query: str) -> Any:
        """Return the JSON answer to a request."""
        with self._open(f"{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
            return json.load(answer)

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()
        try:
            with self._open("/-/ready", timeout=60) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _open(self, path: str, timeout: float) -> Any:
        asked = urllib.request.Request(f"{self.url}{path}", headers=dict(self.headers))
        return urllib.request.urlopen(asked, timeout=timeout, context=self.trusted)


class Prometheus(Server):
    """A Prometheus that scrapes `ip:port` targets, evaluates rules, and notifies an optional Alertmanager."""

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, tuple[str, str]],
        alertmanager: Server | None = None,
        *,
        jobs: Sequence[Mapping[str, Any]] = (),
        rules: Path = RULES,
        interval: str = INTERVAL,
        host: str = LOCAL,
        options: Sequence[str] = (),
    ) -> None:
        """`targets` maps job names to address and path; `jobs` are additional scrape configurations."""
        port = free_port()
        fixed = [
            {"job_name": name, "metrics_path": path, "static_configs": [{"targets": [address]}]}
            for name, (address, path) in targets.items()
        ]
        timing = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
        config: dict[str, Any] = {"global": timing, "scrape_configs": [*fixed, *jobs], "rule_files": [str(rules)]}
        if alertmanager:
            target = alertmanager.url.removeprefix("http://")
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [target]}]}]}
        self._config, self._file = config, directory / "prometheus.yml"
        self._file.write_text(yaml.safe_dump(config))
        command = ["prometheus", f"--config.file={self._file}", f"--storage.tsdb.path={directory}/tsdb"]
        command += [f"--web.listen-address={host}:{port}", "--log.level=warn", *options]
        super().__init__(command, port, directory / "prometheus.log", host)

    def scrape(self, job: str, **changes: Any) -> None:
        """Reload with changed settings of a job, or without the job if there are none."""
        jobs = [{**one, **changes} if one["job_name"] == job else one for one in self._config["scrape_configs"]]
        self._reload([one for one in jobs if changes or one["job_name"] != job])

    def scrape_as_before(self) -> None:
        self._reload(self._config["scrape_configs"])

    def _reload(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        self._file.write_text(yaml.safe_dump({**self._config, "scrape_configs": list(jobs)}))
        self.signal(signal.SIGHUP)

    def query(self, text: str) -> dict[str, float]:
        """Return an instant vector by the label `service`, or by job; it may be empty."""
        rows = self.ask("/api/v1/query", query=text)["data"]["result"]
        return {row["metric"].get("service", row["metric"].get("job", "")): float(row["value"][1]) for row in rows}

    def firing(self) -> dict[tuple[str, str], str]:
        """Return the start time of each firing alert, by its name and service."""
        alerts = self.ask("/api/v1/alerts")["data"]["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("service", "")): alert["activeAt"]
            for alert in alerts
            if alert["state"] == "firing"
        }


class Alertmanager(Server):
    """An Alertmanager that sends every alert to a webhook at once."""

    def __init__(self, directory: Path, webhook: str) -> None:
        port = free_port()
        timing = {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
        route = {"receiver": "webhook", "group_by": ["alertname", "service"], **timing}
        receiver = {"name": "webhook", "webhook_configs": [{"url": webhook, "send_resolved": True}]}
        file = directory / "alertmanager.yml"
        file.write_text(yaml.safe_dump({"route": route, "receivers": [receiver]}))
        command = ["prometheus-alertmanager", f"--config.file={file}", f"--storage.path={directory}/alertmanager"]
        command += [f"--web.listen-address={LOCAL}:{port}", "--cluster.listen-address=", "--log.level=warn"]
        super().__init__(command, port, directory / "alertmanager.log")


class Webhook:
    """A webhook that records every alert in order."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.alerts += json.loads(body)["alerts"]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Do not log requests."""

        self._server = ThreadingHTTPServer((LOCAL, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://{LOCAL}:{self._server.server_address[1]}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def received(self, alertname: str, status: str) -> list[dict[str, Any]]:
        """Return the recorded alerts with this name and status (`firing` or `resolved`)."""
        return [
            alert
            for alert in list(self.alerts)
            if alert["labels"]["alertname"] == alertname and alert["status"] == status
        ]
