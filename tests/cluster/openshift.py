"""OpenShift's constraint restricted-v2, imitated: the API server assigns ids to pods, and refuses pods, as it does."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness import Cluster, ToolFailed
from tests.e2e.harness import until

POLICIES = Path(__file__).with_name("restricted_v2.yaml")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "openshift.md"
LABEL = "test.zenvoy.dev/constraint"
USER = GROUP = 1000680000
"""The ids that the constraint assigns; they are in no file of the images."""
POLICY_SECONDS = 120.0
"""The API server enforces a policy some time after it has accepted it."""


def documented_values() -> dict[str, Any]:
    """Return the values that the page tells people to install with."""
    _, _, block = PAGE.read_text().partition("```yaml\n# openshift.yaml\n")
    values = yaml.safe_load(block.partition("```")[0])
    assert isinstance(values, dict)
    return values


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Return values as the arguments of `--set` have them."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", json.dumps(value)


@contextmanager
def constrained(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Subject the pods of a namespace, which may be a new one, to the constraint until the end of the block."""
    cluster.kubectl("apply", "-f", str(POLICIES))
    labelled = {"name": namespace, "labels": {LABEL: "restricted-v2"}}
    cluster.kubectl(
        "apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": labelled})
    )
    account = ("serviceaccount/default", "--namespace", namespace)
    cluster.kubectl("wait", "--for=create", *account, "--timeout=240s")
    until("the constraint is enforced", lambda: _is_enforced(cluster, namespace), POLICY_SECONDS)
    try:
        yield
    finally:
        cluster.kubectl("label", "namespace", namespace, f"{LABEL}-")


def _is_enforced(cluster: Cluster, namespace: str) -> bool:
    """Return whether one pod is refused, and another gets the ids."""
    harmless = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    try:
        _dry_run(cluster, namespace, {**harmless, "runAsUser": 1})
    except ToolFailed as error:
        if "restricted-v2" not in str(error):
            raise
    else:
        return False
    return USER in _dry_run(cluster, namespace, harmless)


def _dry_run(cluster: Cluster, namespace: str, rights: Mapping[str, Any]) -> set[int]:
    """Create a pod that is not stored, and return its containers' users. Raises `ToolFailed` if it is refused."""
    container = {"name": "it", "image": "localhost/it:1", "securityContext": rights}
    spec = {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}, "containers": [container]}
    name = f"constrained-{secrets.token_hex(4)}"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    command = ("create", "--namespace", namespace, "--dry-run=server", "-o", "json", "-f", "-")
    made = json.loads(cluster.kubectl(*command, given=json.dumps(pod)))
    return {one["securityContext"].get("runAsUser", 0) for one in made["spec"]["containers"]}
