"""The local runtime with real processes and without an Envoy: effects of its failures on services."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from reconciler.app.local_runtime import LocalRuntime, LocalSettings
from reconciler.core.events import WakeCommanded
from reconciler.core.record import State
from reconciler.core.traffic import Sample
from reconciler.local.file_watch import load
from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.services_file import ServicesFile, read
from reconciler.local.state_dir import StateDir
from tests.ports import free_port

PATIENCE_SECONDS = 60.0
SERVER = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(1000)"


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


def services_file(path: Path, *names: str, **more: object) -> ServicesFile:
    port = free_port()
    command = [sys.executable, "-S", "-E", "-c", SERVER, "{port}"]
    services = [{"name": name, "command": command, **more} for name in names]
    path.write_text(json.dumps({"listen": {"http": f"127.0.0.1:{port}"}, "services": services}))
    found = read(path)
    assert isinstance(found, ServicesFile), found
    return found


class Stage:
    """Runtimes with one state directory, which is the working directory."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "services.yaml"
        self.state_dir = StateDir(folder)

    def reconciler(self, *names: str) -> LocalRuntime:
        file = services_file(self.file, *names)
        return LocalRuntime(LocalSettings(self.file, self.state_dir, 18001, None, None), file)

    def is_known(self, reconciler: LocalRuntime, name: str) -> bool:
        """Return whether the runtime serves, and has the status of the service."""
        service = reconciler.engine.services.get(name)
        return service is not None and service.record is not None and self.state_dir.control.exists()

    def state(self, reconciler: LocalRuntime, name: str) -> State:
        record = reconciler.engine.services[name].record
        assert record
        return record.state

    def endpoints(self, reconciler: LocalRuntime, name: str) -> tuple[str, ...]:
        return reconciler.engine.services[name].seen.endpoints


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.chdir(tmp_path)
    yield Stage(tmp_path)
    backend = ProcessBackend(tmp_path, lambda _: None)
    backend.configure({})
    await backend.close()


class Broken:
    """A source of samples that fails."""

    async def sample(self) -> Sample:
        raise ZeroDivisionError


async def test_runtime_failed_task_ends_it_and_no_service(stage: Stage) -> None:
    first = stage.reconciler("web")
    running = asyncio.create_task(first.run())
    await eventually(lambda: stage.is_known(first, "web"))
    first.engine.command("web", WakeCommanded("asked for"))
    await eventually(lambda: stage.endpoints(first, "web"))
    endpoints = stage.endpoints(first, "web")
    first._sampler._sample = Broken().sample
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(running, PATIENCE_SECONDS)

    second = stage.reconciler("web")
    running = asyncio.create_task(second.run())
    await eventually(lambda: stage.is_known(second, "web"))
    assert stage.endpoints(second, "web") == endpoints
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, PATIENCE_SECONDS)
    assert not list((stage.state_dir.path / "processes").glob("*.json")), "services end with it"


async def test_runtime_failed_reload_keeps_last_configuration(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = stage.reconciler("web")
    running = asyncio.create_task(subject.run())
    await eventually(lambda: stage.is_known(subject, "web"))
    apply, faults = subject._apply, [ZeroDivisionError()]

    def apply_later(file: ServicesFile) -> None:
        if faults:
            raise faults.pop()
        apply(file)

    monkeypatch.setattr(subject, "_apply", apply_later)
    services_file(stage.file, "web", "other")
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: not faults)
    assert stage.is_known(subject, "web")
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: stage.is_known(subject, "other"))
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, PATIENCE_SECONDS)


async def test_runtime_longer_sample_interval_raises_staleness(stage: Stage) -> None:
    subject = stage.reconciler("web")
    running = asyncio.create_task(subject.run())
    await eventually(lambda: stage.is_known(subject, "web"))
    text = json.loads(stage.file.read_text())
    stage.file.write_text(json.dumps({**text, "sampleInterval": "30s"}))
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: subject.engine.pace.stale_after > 30)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, PATIENCE_SECONDS)


def test_load_copy_not_writable_returns_file(tmp_path: Path) -> None:
    services_file(tmp_path / "services.yaml", "web")
    with structlog.testing.capture_logs() as lines:
        found = load(tmp_path / "services.yaml", tmp_path / "no-such-folder" / "last-good.yaml", {})
    assert isinstance(found, ServicesFile)
    assert [line["log_level"] for line in lines] == ["error"]
