"""The state directory of `zenvoy up`."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.app.up import _holder_socket
from reconciler.local.state_dir import StateDir


@pytest.mark.parametrize("noted", [None, "", "\0\0\0", "-1"], ids=["none", "empty", "zeroes", "negative"])
def test_holder_socket_restart_keeps_port(tmp_path: Path, noted: str | None) -> None:
    """Notes as a power cut can leave them."""
    state_dir = StateDir(tmp_path)
    if noted is not None:
        state_dir.holder_port.write_text(noted)
    with _holder_socket(state_dir) as first:
        port = first.getsockname()[1]
    with _holder_socket(state_dir) as second:
        assert second.getsockname()[1] == port
