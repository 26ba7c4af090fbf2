"""The Prometheus configuration in the documentation."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.prometheus
def test_documented_prometheus_configuration_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "prometheus.md").read_text()
    [shown] = re.findall(r"```yaml\n(scrape_configs:.*?)```", page, re.DOTALL)
    for name in ("recording", "alerts"):
        shutil.copy(ROOT / "deploy" / "prometheus" / f"{name}.yaml", tmp_path)
    file = tmp_path / "prometheus.yaml"
    file.write_text(shown)
    done = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
