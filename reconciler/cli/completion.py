"""Completion of service names in a shell, from the running `zenvoy up` or from the cluster."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import typer

from reconciler.cli import control_client
from reconciler.cli.context import addresses_cluster
from reconciler.cluster_client.context_options import ContextOptions


def complete_service(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of services that start with `incomplete`; none if zenvoy does not answer."""
    options: dict[str, Any] = ctx.params
    selection = ContextOptions(
        options.get("namespace"),
        bool(options.get("everywhere")),
        options.get("context"),
        options.get("kubeconfig"),
        state_dir=options.get("state_dir"),
    )
    with contextlib.redirect_stderr(io.StringIO()):  # a shell shows it in the middle of the line
        try:
            names = _in_cluster(selection) if addresses_cluster(selection, incomplete) else _on_machine(selection)
        except (OSError, typer.Exit, control_client.ControlError):
            return []
    given = options.get("names") or ()
    return [name for name in names if name.startswith(incomplete) and name not in given]


def _on_machine(selection: ContextOptions) -> list[str]:
    services = control_client.ask(selection.state.control, "GET", "/v1/services")["services"]
    return [str(service["name"]) for service in services]


def _in_cluster(selection: ContextOptions) -> list[str]:
    from reconciler.cli.commands import cluster
    from reconciler.cluster_client.status import service_status

    found = cluster.run(selection, lambda one: service_status(one, None, False, lambda _: None))
    keys = [str(service["name"]) for service in found["services"]]
    return keys if selection.everywhere else [key.rpartition("/")[2] for key in keys]
