"""The health of ScaledServices on a real API server, by the library that Flux and Helm use."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.reasons import Problem, Reason
from reconciler.core.record import Record, State
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.status.conditions import StatusInputs, compute_status, status_patch
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND, PLURAL, ScaledService
from tests.cluster import crd
from tests.cluster.harness import TOOLING_SECONDS, run

MODULE = Path(__file__).parent / "kstatus"
PROBLEM = Problem(Reason.PORT_NOT_FOUND, "spec.port", "Service shop/web has no port 81", "write 80")


def record(state: State, stalled: str | None = None) -> Record:
    return Record(state, 1_795_000_000.0, "a reason", 1, "127.64.0.1:18001", stalled)


EXPECTED = {
    "new": (None, "InProgress"),
    "not-seen": (StatusInputs(), "InProgress"),
    "asleep": (StatusInputs(record(State.ScaledToZero)), "Current"),
    "waking": (StatusInputs(record(State.Waking)), "InProgress"),
    "stalled": (StatusInputs(record(State.Waking, "ImagePullBackOff: no such image")), "Failed"),
    "active": (StatusInputs(record(State.Active)), "Current"),
    "idle": (StatusInputs(record(State.Idle)), "Current"),
    "draining": (StatusInputs(record(State.Draining)), "Current"),
    "mistaken": (StatusInputs(record(State.Active), (PROBLEM,)), "InProgress"),
}


@pytest.fixture(scope="module")
def kstatus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("kstatus") / "kstatus"
    run("go", "-C", MODULE, "build", "-o", program, ".", timeout=TOOLING_SECONDS)
    return program


async def test_kstatus_asleep_and_awake_are_current(api: Api, namespace: str, kstatus: Path) -> None:
    await crd.install(api)
    objects = [await _object(api, namespace, name, inputs) for name, (inputs, _) in EXPECTED.items()]
    computed = run(kstatus, given=json.dumps(objects)).split()
    assert dict(zip(EXPECTED, computed, strict=True)) == {name: health for name, (_, health) in EXPECTED.items()}


async def _object(api: Api, namespace: str, name: str, inputs: StatusInputs | None) -> dict[str, Any]:
    """Create a ScaledService, write the status as the reconciler does, and return the stored object."""
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}}
    stored = await api.call("POST", path(API_VERSION, PLURAL, namespace), body)
    if inputs is not None:
        item = decoder(ScaledService)(stored)
        after = compute_status(inputs, item.status, time.time(), generation=item.metadata.generation)
        change = status_patch(item.status, after)
        where = path(API_VERSION, PLURAL, namespace, name, "status")
        stored = await api.patch(where, {"status": change}, MERGE_PATCH)
    found: dict[str, Any] = json.loads(stored)
    return found
