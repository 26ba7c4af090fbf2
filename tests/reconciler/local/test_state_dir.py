"""The state directory: files of zenvoy's own processes are not those of services."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.local.services_file import ServicesFile, read
from reconciler.local.state_dir import StateDir


@pytest.mark.parametrize("process", ["envoy", "holder", "keeper", "reconciler", "prometheus"])
def test_process_log_is_not_that_of_any_service(process: str, tmp_path: Path) -> None:
    state, file = StateDir(tmp_path / "state"), tmp_path / "services.yaml"

    def is_a_service(name: str) -> bool:
        file.write_text(
            f"listen: {{http: '127.0.0.1:10000'}}\nservices: [{{name: {name}, command: [sleep, '{{port}}']}}]"
        )
        return isinstance(read(file), ServicesFile)

    assert is_a_service(process)
    assert state.log(process) != state.process_log(process)
    assert not is_a_service(state.process_log(process).stem)
