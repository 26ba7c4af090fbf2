"""The zenvoy that a command addresses: on this machine, or in a cluster.

The first of these rules that applies decides: the options; ZENVOY_STATE_DIR; a name with a namespace, which exists only
in a cluster; a kubectl plugin, which addresses a cluster; a `zenvoy up` or a state directory here; a kubeconfig, or a
pod's service account; this machine. No Kubernetes client is imported to decide.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from reconciler.cli import output
from reconciler.cli.output import ExitCode
from reconciler.cluster_client.context_options import STATE_DIR_VARIABLE, ContextOptions

_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def addresses_cluster(selection: ContextOptions, name: str | None = None) -> bool:
    """Return whether a command addresses a cluster; exit with an error if the options conflict.

    `name` is that of a service.
    """
    is_typed = selection.state_dir is not None and str(selection.state_dir) != os.environ.get(STATE_DIR_VARIABLE)
    if selection.names_cluster and is_typed:
        output.fail(
            "--state-dir selects this machine, and -n, -A, --context and --kubeconfig select a cluster; remove one",
            ExitCode.USAGE,
        )
    if selection.names_cluster or selection.state_dir:
        return selection.names_cluster
    if name and "/" in name:
        return True
    is_plugin = Path(sys.argv[0]).name.startswith("kubectl-")
    if is_plugin or selection.state.path.is_dir():
        return is_plugin
    return bool(selection.controller) or kubeconfig_error(None) is None


def kubeconfig_error(kubeconfig: Path | None) -> str | None:
    """Return a message for the user if there is neither a kubeconfig nor a service account."""
    if kubeconfig is not None:
        return None if kubeconfig.is_file() else f"--kubeconfig: {kubeconfig} does not exist; name another file"
    named = os.environ.get("KUBECONFIG", "")  # as kubectl reads it
    files = [Path(part) for part in named.split(os.pathsep) if part] or [Path(os.path.expanduser("~/.kube/config"))]
    if _SERVICE_ACCOUNT_TOKEN.exists() or any(file.is_file() for file in files):
        return None
    tried = ", ".join(map(str, files))
    return f"no cluster is configured: {tried} does not exist; name a kubeconfig with --kubeconfig or KUBECONFIG"
