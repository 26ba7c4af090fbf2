"""The state directory of `zenvoy up`, and its notifications to a service manager."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import structlog

from reconciler.app.up import _holder_socket, notify
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


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager_receives_states(tmp_path: Path, abstract: bool) -> None:
    name = f"{tmp_path}/notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        manager.settimeout(60)
        notify(f"@{name}" if abstract else name, "READY=1", "STATUS=serving now")
        assert manager.recv(100) == b"READY=1\nSTATUS=serving now"


@pytest.mark.parametrize(("address", "logged"), [(None, 0), ("", 0), ("/nowhere/notify.sock", 1)])
def test_service_manager_missing_is_harmless(address: str | None, logged: int) -> None:
    with structlog.testing.capture_logs() as lines:
        notify(address, "READY=1")
    assert [line["event"] for line in lines] == ["failed to notify the service manager"] * logged
