"""Kinds of other projects, with the definitions in their Go modules; none of their programs runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.crd import DEFINITION_SECONDS, is_established
from tests.cluster.harness import TOOLING_SECONDS, Cluster, ToolFailed, run
from tests.e2e.harness import until

HERE = Path(__file__).parent


@contextmanager
def defined(cluster: Cluster, pin: str, module: str, files: Sequence[str]) -> Iterator[Cluster]:
    """Provide the cluster with the definitions in these files of `module`; the folder `pin` has its go.mod."""
    run("go", "-C", HERE / pin, "mod", "download", module, timeout=TOOLING_SECONDS)
    folder = Path(run("go", "-C", HERE / pin, "list", "-m", "-f", "{{.Dir}}", module).strip())
    named = [option for file in files for option in ("-f", str(folder / file))]
    cluster.kubectl("apply", "--server-side", *named)
    until("the definitions are established", lambda: _are_established(cluster, named), DEFINITION_SECONDS)
    yield cluster
    cluster.kubectl("delete", "--wait=false", *named)


def _are_established(cluster: Cluster, named: Sequence[str]) -> bool:
    """Return whether all definitions are in force, and kubectl knows them.

    `kubectl wait` fails while one has no conditions yet.
    """
    said = json.loads(cluster.kubectl("get", *named, "-o", "json"))
    definitions = said.get("items", [said])
    if not all(is_established(one) for one in definitions):
        return False
    try:
        cluster.kubectl("get", ",".join(one["metadata"]["name"] for one in definitions), "--all-namespaces")
    except ToolFailed:
        return False
    return True


def created(cluster: Cluster, objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the API server's line about each object that it would accept. Raises `ToolFailed` for an unknown field."""
    strict = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    return cluster.kubectl(*strict, given=yaml.safe_dump_all(objects)).splitlines()
