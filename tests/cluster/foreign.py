"""Kinds of other projects, with the definitions in their Go modules; none of their programs runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness import TOOLING_SECONDS, Cluster, run

HERE = Path(__file__).parent


@contextmanager
def defined(cluster: Cluster, pin: str, module: str, files: Sequence[str]) -> Iterator[Cluster]:
    """Provide the cluster with the definitions in these files of `module`; the folder `pin` has its go.mod."""
    run("go", "-C", HERE / pin, "mod", "download", module, timeout=TOOLING_SECONDS)
    folder = Path(run("go", "-C", HERE / pin, "list", "-m", "-f", "{{.Dir}}", module).strip())
    named = [option for file in files for option in ("-f", str(folder / file))]
    cluster.kubectl("apply", "--server-side", *named)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=240s", *named)
    yield cluster
    cluster.kubectl("delete", "--wait=false", *named)


def created(cluster: Cluster, objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the API server's line about each object that it would accept. Raises `ToolFailed` for an unknown field."""
    strict = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    return cluster.kubectl(*strict, given=yaml.safe_dump_all(objects)).splitlines()
