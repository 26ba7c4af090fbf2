"""Where the way to a cluster is described. Light: whether there is one is asked before anything else is imported."""

from __future__ import annotations

import os
from pathlib import Path

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def kubeconfigs() -> list[Path]:
    """Where kubectl would look."""
    named = os.environ.get("KUBECONFIG", "")
    return [Path(part) for part in named.split(os.pathsep) if part] or [Path.home() / ".kube" / "config"]


def in_pod() -> bool:
    """Whether we are a pod with a service account."""
    return _TOKEN.exists()


def missing(kubeconfig: Path | None) -> str | None:
    """Why there is no way to a cluster, for people; None when there is one to try."""
    if kubeconfig is not None:
        return None if kubeconfig.is_file() else f"there is no kubeconfig {kubeconfig}; name another with --kubeconfig"
    if in_pod() or any(file.is_file() for file in kubeconfigs()):
        return None
    tried = ", ".join(str(file) for file in kubeconfigs())
    return f"no cluster to talk to: there is no kubeconfig {tried}; name one with --kubeconfig or KUBECONFIG"
