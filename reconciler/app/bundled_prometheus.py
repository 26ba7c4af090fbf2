"""The Prometheus of `zenvoy up --with-prometheus`: whatever is on the PATH, with a configuration of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from reconciler.adapters.prometheus.settings import PrometheusSettings
from reconciler.app.children import Child

DIRECTORY = "prometheus"
RETENTION = "1d"
TIMEOUT_SECONDS = 2.0


def binary() -> str | None:
    """The Prometheus on the PATH, if there is one."""
    return shutil.which("prometheus")


def settings(port: int, sample_interval: float) -> PrometheusSettings:
    """How to ask it."""
    return PrometheusSettings(f"http://127.0.0.1:{port}", sample_interval, timeout=TIMEOUT_SECONDS)


def child(program: str, state_dir: Path, port: int, sample_interval: float, metrics: str, holder: str | None) -> Child:
    """The process, its configuration written."""
    directory = state_dir / DIRECTORY
    directory.mkdir(exist_ok=True)
    (directory / "prometheus.yml").write_text(configuration(sample_interval, metrics, holder))
    command = [program, f"--config.file={DIRECTORY}/prometheus.yml", f"--storage.tsdb.path={DIRECTORY}/data"]
    command += [f"--storage.tsdb.retention.time={RETENTION}", f"--web.listen-address=127.0.0.1:{port}"]
    return Child("prometheus", command, output=state_dir / "logs" / "prometheus.log", stop_seconds=0.5)


def configuration(sample_interval: float, metrics: str, holder: str | None) -> str:
    """Scrape Envoy, the reconciler and the holder."""
    jobs = [
        {"job_name": "envoy", "metrics_path": "/envoy/metrics", "static_configs": [{"targets": [metrics]}]},
        {"job_name": "zenvoy", "static_configs": [{"targets": [metrics]}]},
    ]
    if holder:
        jobs.append({"job_name": "zenvoy-tproxy", "static_configs": [{"targets": [holder]}]})
    interval = f"{round(sample_interval * 1000)}ms"
    whole = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
    return str(yaml.safe_dump(whole, sort_keys=False))
