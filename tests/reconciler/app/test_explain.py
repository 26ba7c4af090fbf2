"""The answers of a complete reconciler to `zenvoy explain`, over its control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from reconciler.app.local_runtime import LocalRuntime
from reconciler.cli.control_client import RequestRejected, ask
from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.state_dir import GRPC_SOCKET
from tests.reconciler.app.test_local_runtime import PATIENCE_SECONDS, Stage, eventually
from tproxy import wire


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.chdir(tmp_path)
    yield Stage(tmp_path)
    backend = ProcessBackend(tmp_path, lambda _: None)
    backend.configure({})
    await backend.close()


@pytest.fixture
async def running(stage: Stage) -> AsyncIterator[LocalRuntime]:
    reconciler = stage.reconciler("web")
    task = asyncio.create_task(reconciler.run())
    await eventually(lambda: stage.is_known(reconciler, "web"))
    yield reconciler
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await reconciler._close()


async def asked(stage: Stage, path: str, method: str = "GET") -> Any:
    return await asyncio.to_thread(ask, stage.state_dir.control, method, path)


async def test_explain_contains_evidence_and_transitions(stage: Stage, running: LocalRuntime) -> None:
    await asked(stage, "/v1/services/web/wake", "POST")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (found := await asked(stage, "/v1/services/web/explain"))["service"]["state"] != "Active":
            await asyncio.sleep(0.01)
    assert found["service"]["name"] == "web"
    assert found["sample"]["source"] == "Envoy's admin port"
    assert found["sample"]["unknown"]
    assert found["envoys"] == {"version": found["envoys"]["version"], "each": []} and found["envoys"]["version"]
    assert found["holders"] == []
    assert [(move["from"], move["event"], move["to"]) for move in found["transitions"]] == [
        ("Waking", "Ready", "Active"),
        ("ScaledToZero", "WakeCommanded", "Waking"),
    ]
    assert found["settings"]["idleAfter"] == 300.0


async def test_explain_connected_holder_is_listed(stage: Stage, running: LocalRuntime) -> None:
    async def up() -> AsyncIterator[wire.HolderReport]:
        yield wire.HolderReport(hello=wire.HolderHello("holder-1", "anyip"))
        await asyncio.sleep(3600)

    async with grpc.aio.insecure_channel(f"unix:{GRPC_SOCKET}") as channel:
        stream = channel.stream_stream(wire.METHOD, wire.ENCODER.encode, wire.DOWN.decode)(up())
        assert isinstance(await stream.read(), wire.AssignmentUpdate)
        found = await asked(stage, "/v1/services/web/explain")
        overview = await asked(stage, "/v1/overview")
        stream.cancel()
    (holder,) = found["holders"]
    assert (holder["id"], holder["mode"], holder["connected"], holder["held"]) == ("holder-1", "anyip", True, 0)
    assert overview["holders"] == [{"id": "holder-1", "mode": "anyip", "connected": True, "rules": None}]
    assert overview["services"] == 1 and overview["envoys"] == [] and overview["sample"]["unknown"]


async def test_explain_unknown_service_is_rejected(stage: Stage, running: LocalRuntime) -> None:
    with pytest.raises(RequestRejected, match="there is no service 'other'"):
        await asked(stage, "/v1/services/other/explain")
