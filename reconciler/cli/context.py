"""Which zenvoy a command is for: the one on this machine, or the one in a cluster.

Rules, in this order: what was typed; ZENVOY_STATE_DIR; a name with a namespace, which only a cluster has; as a kubectl
plugin, the cluster; a `zenvoy up` that runs here; a state directory here; a kubeconfig, or a
pod's service account; this machine.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from reconciler.cli import output
from reconciler.cli.exit_codes import Exit
from reconciler.cli.options import SYSTEM_NAMESPACE
from reconciler.local.state_dir import StateDir

HERE = Path(".zenvoy")
PLUGIN = "kubectl-"
"""What the names of kubectl's plugins begin with."""
VARIABLE = "ZENVOY_STATE_DIR"
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class Typed:
    """The options as they came."""

    namespace: str | None = None
    everywhere: bool = False
    context: str | None = None
    kubeconfig: Path | None = None
    system: str = SYSTEM_NAMESPACE
    controller: str | None = None
    state_dir: Path | None = None

    @property
    def of_cluster(self) -> bool:
        return bool(self.namespace or self.everywhere or self.context or self.kubeconfig)

    @property
    def state(self) -> StateDir:
        return StateDir((self.state_dir or HERE).absolute())


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is, besides what was typed."""

    plugin: bool
    """Whether we run as a plugin of kubectl."""
    state_dir_typed: bool
    """Whether the state directory comes from the command line, and not from the environment."""
    control: bool
    """Whether a `zenvoy up` runs there, or was killed."""
    directory: bool
    kubeconfig: bool


def in_cluster(typed: Typed, around: Surroundings, name: str | None = None) -> bool:
    """Whether a cluster is meant, by a service's name too. Raises `ValueError` when both are."""
    if typed.of_cluster and typed.state_dir and around.state_dir_typed:
        raise ValueError("--state-dir means this machine, and -n, -A, --context, --kubeconfig a cluster: give only one")
    if typed.of_cluster or typed.state_dir:
        return typed.of_cluster
    if name and "/" in name:
        return True
    if around.plugin or around.control or around.directory:
        return around.plugin
    return around.kubeconfig or bool(typed.controller)


def meant(typed: Typed, name: str | None = None) -> bool:
    """Whether a cluster is meant; ends the program when that cannot be told."""
    try:
        return in_cluster(typed, surroundings(typed), name)
    except ValueError as error:
        output.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.USAGE) from None


def surroundings(typed: Typed) -> Surroundings:
    """What there is now."""
    return Surroundings(
        plugin=Path(sys.argv[0]).name.startswith(PLUGIN),
        state_dir_typed=typed.state_dir is not None and str(typed.state_dir) != os.environ.get(VARIABLE),
        control=typed.state.control.exists(),
        directory=typed.state.path.is_dir(),
        kubeconfig=missing(typed.kubeconfig) is None,
    )


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
