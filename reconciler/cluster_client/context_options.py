"""The options that select a zenvoy: a cluster, a namespace in it and its controller, or a state directory.

Every command reads them, so this module imports no Kubernetes client.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.local.state_dir import StateDir

SYSTEM_NAMESPACE = "zenvoy-system"
STATE_DIR = Path(".zenvoy")
STATE_DIR_VARIABLE = "ZENVOY_STATE_DIR"


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """The options that select a zenvoy, as they were given."""

    namespace: str | None = None
    everywhere: bool = False
    """True for all namespaces."""
    context: str | None = None
    kubeconfig: Path | None = None
    system: str = SYSTEM_NAMESPACE
    """The namespace of the controller."""
    controller: str | None = None
    """The controller's HTTP address; None: through the API server's port-forward."""
    state_dir: Path | None = None

    @property
    def names_cluster(self) -> bool:
        """True if an option is about a cluster."""
        return bool(self.namespace or self.everywhere or self.context or self.kubeconfig)

    @property
    def state(self) -> StateDir:
        """The state directory on this machine."""
        return StateDir((self.state_dir or STATE_DIR).absolute())
