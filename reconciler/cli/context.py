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
from reconciler.cli.exit_codes import ExitCode
from reconciler.cluster_client.context_options import STATE_DIR_VARIABLE, ContextOptions

_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def selects_cluster(
    selection: ContextOptions,
    name: str | None,
    *,
    plugin: bool,
    state_dir_typed: bool,
    directory: bool,
    kubeconfig: bool,
) -> bool:
    """Return whether a command addresses a cluster; `name` is that of a service.

    Further facts: the program runs as a plugin of kubectl; the state directory comes from the command line, not from
    the environment; the state directory exists; and there is a kubeconfig or a service account.

    Raises `ValueError` if the options name both a cluster and this machine.
    """
    if selection.names_cluster and selection.state_dir and state_dir_typed:
        raise ValueError(
            "--state-dir selects this machine, and -n, -A, --context and --kubeconfig select a cluster; remove one"
        )
    if selection.names_cluster or selection.state_dir:
        return selection.names_cluster
    if name and "/" in name:
        return True
    if plugin or directory:
        return plugin
    return kubeconfig or bool(selection.controller)


def addresses_cluster(selection: ContextOptions, name: str | None = None) -> bool:
    """Return whether a command addresses a cluster; exit with an error if the options conflict."""
    is_typed = selection.state_dir is not None and str(selection.state_dir) != os.environ.get(STATE_DIR_VARIABLE)
    try:
        return selects_cluster(
            selection,
            name,
            plugin=Path(sys.argv[0]).name.startswith("kubectl-"),
            state_dir_typed=is_typed,
            directory=selection.state.path.is_dir(),
            kubeconfig=kubeconfig_error(selection.kubeconfig) is None,
        )
    except ValueError as error:
        output.fail(str(error), ExitCode.USAGE)


def kubeconfigs() -> list[Path]:
    """Return the files that kubectl would read."""
    named = os.environ.get("KUBECONFIG", "")
    return [Path(part) for part in named.split(os.pathsep) if part] or [Path(os.path.expanduser("~/.kube/config"))]


def kubeconfig_error(kubeconfig: Path | None) -> str | None:
    """Return a message for the user if there is neither a kubeconfig nor a service account."""
    if kubeconfig is not None:
        return None if kubeconfig.is_file() else f"--kubeconfig: {kubeconfig} does not exist; name another file"
    if _SERVICE_ACCOUNT_TOKEN.exists() or any(file.is_file() for file in kubeconfigs()):
        return None
    tried = ", ".join(str(file) for file in kubeconfigs())
    return f"no cluster is configured: {tried} does not exist; name a kubeconfig with --kubeconfig or KUBECONFIG"
