"""The cluster that the tests use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import Unreachable
from tests.cluster.harness import Cluster, ToolFailed, run
from tests.ports import free_ports

SCRIPT = Path(__file__).with_name("cluster")


async def test_cluster_objects_survive_an_api_server_restart(api: Api, apiserver: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    await api.call("POST", path, {"metadata": {"name": "kept"}, "data": {"a": "b"}})
    apiserver.stop_apiserver()
    with pytest.raises(Unreachable):
        await api.get(f"{path}/kept")
    apiserver.start_apiserver()
    assert json.loads(await api.get(f"{path}/kept"))["data"] == {"a": "b"}


def started(name: str, argument: str) -> subprocess.Popen[bytes]:
    """Return a process of that name, which does nothing."""
    process = subprocess.Popen([name, "-c", "import time; time.sleep(1000)", argument], executable=sys.executable)
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes():  # as long as the kernel loads the program
        time.sleep(0.01)
    return process


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Provide processes of a cluster whose folder is gone, and others that only look like them."""
    run = tmp_path / "cluster"
    found = {
        "etcd": started("/bin/etcd", f"{run}/etcd"),
        "apiserver": started("kube-apiserver", f"--tls-cert-file={run}/server.crt"),
        "of another": started("etcd", f"{run}-2/etcd"),
        "a user of it": started("zenvoy", f"--kubeconfig={run}/kubeconfig"),
    }
    yield found
    for process in found.values():
        process.kill()
        process.wait()


def test_cluster_down_finds_processes_without_their_folder(
    tmp_path: Path, lost: dict[str, subprocess.Popen[bytes]]
) -> None:
    environment = {**os.environ, "CLUSTER_DIR": str(tmp_path / "cluster"), "CLUSTER_PORT": "1"}
    done = subprocess.run([SCRIPT, "down"], env=environment, capture_output=True, text=True, check=True)
    assert {name for name, process in lost.items() if process.poll() is None} == {"of another", "a user of it"}
    for name in ("etcd", "apiserver"):
        assert f"cluster: {name} (process {lost[name].pid})" in done.stderr
    assert not (tmp_path / "cluster").exists()


def test_cluster_that_fails_explains_its_processes(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    programs = {
        "etcd": f"#!{sys.executable}\nimport time; print('serving', flush=True); time.sleep(1000)\n",
        # Its parent, which records the exit status, is stopped for half a second, as on a busy machine.
        "kube-apiserver": "#!/bin/sh\n(sleep 0.5; kill -CONT $PPID) & kill -STOP $PPID; echo no etcd; exit 1\n",
    }
    for program, text in programs.items():
        (assets / program).write_text(text)
        (assets / program).chmod(0o755)
    settings = {
        "CLUSTER_DIR": str(tmp_path / "run"),
        "CLUSTER_PORT": str(free_ports(3)),
        "KUBEBUILDER_ASSETS": str(assets),
    }
    try:
        with pytest.raises(ToolFailed) as failed:
            run(SCRIPT, "up", settings=settings)
        assert "cluster: apiserver ended" in str(failed.value)
        assert "== apiserver: exited with code 1\nno etcd\n" in str(failed.value)
        assert "== etcd: runs, " in str(failed.value)
    finally:
        run(SCRIPT, "down", settings=settings)
