"""The Prometheus of `zenvoy up --with-prometheus`: whatever is on the PATH, with a configuration of ours.

It evaluates the rules of deploy/prometheus too, which the wheel brings along; its page `/alerts` shows what fires.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import yaml

from reconciler.local import private_files
from reconciler.local.process_supervisor import Child

DIRECTORY = "prometheus"
RETENTION = "1d"
CHECKOUT = Path(__file__).parents[2] / "deploy" / "prometheus"
"""Beside the package, where it is a checkout."""
INSTALLED = "share/zenvoy/prometheus/*.yaml"
"""Under whatever the wheel was installed into."""


def binary() -> str | None:
    """The Prometheus on the PATH, if there is one."""
    found = shutil.which("prometheus")
    return os.path.abspath(found) if found else None


def rules() -> list[Path]:
    """The rule files, of the checkout or of the wheel that this is."""
    brought = (file for file in metadata.files("zenvoy") or () if file.match(INSTALLED))
    return sorted(CHECKOUT.glob("*.yaml")) or sorted(Path(str(file.locate())).resolve() for file in brought)


def child(program: str, state_dir: Path, port: int, sample_interval: float, metrics: str, holder: str | None) -> Child:
    """The process, its configuration written."""
    directory = state_dir / DIRECTORY
    private_files.make_directory(directory)
    private_files.write(directory / "prometheus.yml", configuration(sample_interval, metrics, holder, rules()).encode())
    command = [program, f"--config.file={DIRECTORY}/prometheus.yml", f"--storage.tsdb.path={DIRECTORY}/data"]
    command += [f"--storage.tsdb.retention.time={RETENTION}", f"--web.listen-address=127.0.0.1:{port}"]
    command += ["--enable-feature=exemplar-storage"]
    return Child("prometheus", command, output=state_dir / "logs" / "prometheus.log", stop_seconds=0.5)


def configuration(sample_interval: float, metrics: str, holder: str | None, rules: Sequence[Path]) -> str:
    """Scrape Envoy, the reconciler and the holder; evaluate those rule files."""
    jobs = [
        {"job_name": "envoy", "metrics_path": "/envoy/metrics", "static_configs": [{"targets": [metrics]}]},
        {"job_name": "zenvoy", "static_configs": [{"targets": [metrics]}]},
    ]
    if holder:
        jobs.append({"job_name": "zenvoy-tproxy", "static_configs": [{"targets": [holder]}]})
    interval = f"{round(sample_interval * 1000)}ms"
    timing = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    whole = {"global": timing, "rule_files": [str(file) for file in rules], "scrape_configs": jobs}
    return str(yaml.safe_dump(whole, sort_keys=False))
