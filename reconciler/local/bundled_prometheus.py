"""The Prometheus of `zenvoy up --with-prometheus`: the binary on the PATH, with a generated configuration.

It also evaluates the rules of deploy/prometheus, which are part of the wheel; its page `/alerts` shows the alerts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import yaml

from reconciler.local import private_files
from reconciler.local.process_supervisor import ChildProcess

DIRECTORY = "prometheus"
RETENTION = "1d"
CHECKOUT = Path(__file__).parents[2] / "deploy" / "prometheus"
"""The rules in a checkout."""
INSTALLED = "share/zenvoy/prometheus/*.yaml"
"""The rules in an installed wheel."""


def binary() -> str | None:
    """Return the Prometheus on the PATH, if there is one."""
    found = shutil.which("prometheus")
    return os.path.abspath(found) if found else None


def rules() -> list[Path]:
    """Return the rule files of the checkout or of the wheel."""
    brought = (file for file in metadata.files("zenvoy") or () if file.match(INSTALLED))
    return sorted(CHECKOUT.glob("*.yaml")) or sorted(Path(str(file.locate())).resolve() for file in brought)


def child(program: str, state_dir: Path, port: int, sample_interval: float, metrics: str, holder: str) -> ChildProcess:
    """Write the configuration, and return the process to run."""
    directory = state_dir / DIRECTORY
    private_files.make_directory(directory)
    private_files.write(directory / "prometheus.yml", configuration(sample_interval, metrics, holder, rules()).encode())
    command = [program, f"--config.file={DIRECTORY}/prometheus.yml", f"--storage.tsdb.path={DIRECTORY}/data"]
    command += [f"--storage.tsdb.retention.time={RETENTION}", f"--web.listen-address=127.0.0.1:{port}"]
    command += ["--enable-feature=exemplar-storage"]
    return ChildProcess("prometheus", command, stop_seconds=0.5)


def configuration(sample_interval: float, metrics: str, holder: str, rules: Sequence[Path]) -> str:
    """Return a configuration that scrapes Envoy, the reconciler and the holder, and evaluates the rules."""
    jobs = [
        {"job_name": "envoy", "metrics_path": "/envoy/metrics", "static_configs": [{"targets": [metrics]}]},
        {"job_name": "zenvoy", "static_configs": [{"targets": [metrics]}]},
        {"job_name": "zenvoy-tproxy", "static_configs": [{"targets": [holder]}]},
    ]
    interval = f"{round(sample_interval * 1000)}ms"
    timing = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    whole = {"global": timing, "rule_files": [str(file) for file in rules], "scrape_configs": jobs}
    return str(yaml.safe_dump(whole, sort_keys=False))
