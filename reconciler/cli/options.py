"""The options that say which zenvoy is meant: a running `zenvoy up`, or a cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import values

CLUSTER, MACHINE = "In a cluster", "On one machine"


class Output(StrEnum):
    """How something is written."""

    table = "table"
    json = "json"
    yaml = "yaml"


Name = Annotated[str, typer.Argument(help="The service; in a cluster NAME or NAMESPACE/NAME.", metavar="NAME")]
MaybeName = Annotated[
    str | None, typer.Argument(help="One service; default: all. In a cluster NAME or NAMESPACE/NAME.", metavar="[NAME]")
]
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How it is written.")]
StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="ZENVOY_STATE_DIR",
        help="The state directory of the running `zenvoy up`; default: .zenvoy.",
        rich_help_panel=MACHINE,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        help="The namespace; default: that of the kubeconfig's context.",
        metavar="NAMESPACE",
        rich_help_panel=CLUSTER,
        callback=values.namespace,
    ),
]
Everywhere = Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.", rich_help_panel=CLUSTER)]
Context = Annotated[
    str | None,
    typer.Option(help="The kubeconfig's context; default: its current one.", metavar="NAME", rich_help_panel=CLUSTER),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="The kubeconfig; default: KUBECONFIG, ~/.kube/config, or the pod's service account.",
        metavar="FILE",
        rich_help_panel=CLUSTER,
    ),
]
System = Annotated[
    str,
    typer.Option(
        "--system-namespace",
        envvar="ZENVOY_SYSTEM_NAMESPACE",
        help="The namespace that zenvoy itself is installed in.",
        metavar="NAMESPACE",
        rich_help_panel=CLUSTER,
        callback=values.namespace,
    ),
]
Controller = Annotated[
    str | None,
    typer.Option(
        envvar="ZENVOY_CONTROLLER",
        help="Where the controller's HTTP port is, if it is not to be asked through the API server: "
        "after `kubectl -n zenvoy-system port-forward deploy/zenvoy-reconciler 18080`, http://127.0.0.1:18080.",
        metavar="URL",
        rich_help_panel=CLUSTER,
        callback=values.url,
    ),
]
Wait = Annotated[bool, typer.Option(help="Wait until it has come about, or until it turns out that it does not.")]
Timeout = Annotated[
    str,
    typer.Option(help="How long to wait at most.", metavar="DURATION", rich_help_panel=CLUSTER),
]
SYSTEM_NAMESPACE = "zenvoy-system"


def seconds(text: str) -> float:
    """A duration that a person typed. Raises `typer.BadParameter`."""
    from reconciler.core.durations import duration

    found = duration(text)
    if not found:
        raise typer.BadParameter(f"'{text}' is not a duration; write it as 30s or 2m", param_hint="--timeout")
    return found
