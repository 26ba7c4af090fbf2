"""`zenvoy uninstall` while replicas still run: they do not undo it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.replicas.scene import BIN, LEASE_SECONDS, Scene, opened
from tests.e2e.harness import until


@pytest.fixture
def leaving(control_plane: Cluster, tmp_path: Path) -> Iterator[Scene]:
    """Provide a scene of its own, because no replica leads in it afterwards."""
    with opened(Scene(control_plane, tmp_path / "scene")) as made:
        yield made


def finalizers(scene: Scene) -> str:
    return scene.kubectl("get", "ssvc", "web", "-o", "jsonpath={.metadata.finalizers}")


def test_uninstall_restores_replicas_and_finalizers(leaving: Scene) -> None:
    leaving.serve("web", idle_after="1s")
    leaving.wait("web", "ScaledToZero")
    until("it is at zero", lambda: leaving.wanted("web") == 0)
    where = ("--system-namespace", leaving.namespace, "--namespace", leaving.namespace)
    command = [str(BIN / "zenvoy"), "uninstall", "--yes", *where, "--kubeconfig", str(leaving.cluster.kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "120"})
    assert done.returncode == 0, done.stdout + done.stderr
    end = time.monotonic() + 3 * LEASE_SECONDS
    while time.monotonic() < end:
        assert leaving.wanted("web") == 1
        assert not finalizers(leaving)
    leaving.kubectl("delete", "ssvc", "web", "--timeout=240s")
