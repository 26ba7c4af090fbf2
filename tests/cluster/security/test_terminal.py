"""Text in objects that controls a terminal, read by a person with the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.types.objects import path
from tests.cluster import crd
from tests.cluster.cli.parts import Cli, Objects, condition, entered
from tests.cluster.harness import Cluster
from tests.security.test_terminal import ATTACK, assert_harmless


@pytest.fixture
async def hostile(api: Api, namespace: str) -> Objects:
    """Provide a namespace whose objects have the attack wherever the API server takes any text."""
    await crd.install(api)
    objects = Objects(api, namespace)
    conditions = [condition("Ready", "False", "NotReady", ATTACK)]
    status = entered("Waking", ATTACK, stalled=ATTACK, target=ATTACK, conditions=conditions)
    await objects.deployment("web", 1, annotations={"text": ATTACK})
    await objects.scaled_service("web", **status)
    event = {
        "metadata": {"name": "web.1"},
        "involvedObject": {"kind": "ScaledService", "name": "web", "namespace": namespace},
        "reason": "WakeStalled",
        "message": ATTACK,
        "type": "Warning",
        "firstTimestamp": "2026-01-02T03:04:05Z",
        "lastTimestamp": "2026-01-02T03:04:05Z",
    }
    await api.call("POST", path("v1", "events", namespace), event)
    return objects


async def test_command_never_writes_what_a_terminal_obeys(
    control_plane: Cluster, hostile: Objects, tmp_path: Path
) -> None:
    cli = Cli(control_plane.kubeconfig, hostile.namespace, tmp_path)
    where = ("-n", hostile.namespace, "--system-namespace", hostile.namespace)
    for command in (
        ("status",),
        ("status", "web"),
        ("explain", "web"),
        ("status", "-o", "yaml"),
        ("status", "-o", "json"),
    ):
        done = await cli(*command, *where)
        assert "title" in done.out
        assert_harmless(done.out + done.err)
    for failing in (("doctor",), ("wake", "web", "--timeout", "1s"), ("explain", "no-such"), ("status", ATTACK)):
        done = await cli(*failing, *where, code=None)
        assert done.code != 0
        assert_harmless(done.out + done.err)
    found = (await cli("status", "web", "-o", "json", *where)).json
    assert (found["reason"], found["stalled"]) == (ATTACK, ATTACK)
