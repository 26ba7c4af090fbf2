"""Notifications to a service manager: a real datagram socket, by path and in the abstract namespace."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from reconciler.local.service_manager import READY, VARIABLE, ServiceManager, status


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager_receives_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"{tmp_path}/notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        manager.settimeout(60)
        monkeypatch.setenv(VARIABLE, f"@{name}" if abstract else name)
        found = ServiceManager.from_environment()
        assert found.address
        assert VARIABLE not in os.environ, "services must not notify in the name of zenvoy"
        found.notify(READY, status("serving\nnow"))
        assert manager.recv(100) == b"READY=1\nSTATUS=serving now"


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify.sock"])
def test_service_manager_missing_is_harmless(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if address is not None:
        monkeypatch.setenv(VARIABLE, address)
    manager = ServiceManager.from_environment()
    manager.notify(READY)
    assert manager.address == (address or None)
