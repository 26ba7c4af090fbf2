"""The program `zenvoy`: its commands, their help, which is made from docstrings, and the completion of names."""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.markup import escape

from reconciler import environment
from reconciler.app.encoding import degrade_output, open_missing_streams, restart_in_utf8
from reconciler.cli import control_client, options, output
from reconciler.cli.commands import controller, envoy, logs, maintenance, services, up
from reconciler.cli.context import addresses_cluster
from reconciler.cli.output import ExitCode
from reconciler.cluster_client.context_options import ContextOptions

PROGRAM_HELP = """Scale services behind Envoy to zero, and wake them on the first connection without losing it.

On one machine:

  zenvoy check services.yaml

  zenvoy up services.yaml

  zenvoy status --watch

In a cluster:

  zenvoy status -A

  zenvoy explain web -n shop

Exit codes: 0 success; 1 failure; 2 usage error or invalid file; 3 zenvoy is not running or not reachable; 4 unknown
service.
"""


def render_help(docstring: str | None) -> str:
    """Return a docstring as markup for typer's rich mode.

    A paragraph is written as one line, which the terminal wraps. Indented lines are examples and are kept as they are.
    """
    rendered: list[str] = []
    after_example = False
    for paragraph in inspect.cleandoc(docstring or "").split("\n\n"):
        is_example = paragraph.startswith("  ")
        # The tag precedes the indentation because typer removes the indentation that all lines share.
        text = f"[bold]{escape(paragraph)}[/bold]" if is_example else " ".join(paragraph.split())
        rendered.append(("\n" if is_example and after_example else "\n\n" if rendered else "") + text)
        after_example = is_example
    return "".join(rendered)


def _complete_service(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of services that start with `incomplete`; none if zenvoy does not answer."""
    given: dict[str, Any] = ctx.params
    selection = ContextOptions(
        given.get("namespace"),
        bool(given.get("everywhere")),
        given.get("context"),
        given.get("kubeconfig"),
        state_dir=given.get("state_dir"),
    )
    with contextlib.redirect_stderr(io.StringIO()):  # a shell shows it in the middle of the line
        try:
            names = _in_cluster(selection) if addresses_cluster(selection, incomplete) else _on_machine(selection)
        except (OSError, typer.Exit, control_client.ControlError):
            return []
    return [name for name in names if name.startswith(incomplete) and name not in (given.get("names") or ())]


def _on_machine(selection: ContextOptions) -> list[str]:
    services = control_client.ask(selection.state.control, "GET", "/v1/services")["services"]
    return [str(service["name"]) for service in services]


def _in_cluster(selection: ContextOptions) -> list[str]:
    from reconciler.cli.commands import cluster
    from reconciler.cluster_client.cluster import ClusterClient

    items = cluster.run(selection, ClusterClient.list_services)
    return [item.metadata.key if selection.everywhere else item.metadata.name for item in items]


app = typer.Typer(
    name="zenvoy",
    help=render_help(PROGRAM_HELP),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
COMMANDS: dict[str, Callable[..., None]] = {
    "up": up.up_command,
    "check": up.check,
    "status": services.status,
    "explain": services.explain,
    "logs": logs.logs,
    "wake": services.wake,
    "sleep": services.sleep,
    "wait": services.wait,
    "pause": services.pause,
    "resume": services.resume,
    "doctor": maintenance.doctor,
    "uninstall": maintenance.uninstall,
    "controller": controller.controller,
    "certificate": envoy.certificate,
    "bootstrap": envoy.bootstrap_command,
    "drain-envoy": envoy.drain_envoy_command,
    "diagram": envoy.diagram_command,
}
for name, function in COMMANDS.items():
    app.command(name, help=render_help(function.__doc__))(function)
options.completions.append(_complete_service)
app.command("reconcile", hidden=True)(up.reconcile)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.echo(f"zenvoy {version('zenvoy')}")
        raise typer.Exit


@app.callback()
def root(
    wanted: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Accept the options that precede a command."""


def main(prog_name: str | None = None) -> None:
    """Run the console script."""
    # By default gRPC prints a line for each failed TLS handshake, which every process that reaches the port can cause.
    # It reads this when it is imported, which only commands do.
    environment.set_default("GRPC_VERBOSITY", "ERROR")
    open_missing_streams()
    restart_in_utf8()
    degrade_output()
    try:
        app(prog_name=prog_name)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still writes there when it ends
        output.error(f"cannot write the output: {error.strerror}; free disk space, or write to another file")
        sys.exit(ExitCode.FAILED)


def kubectl() -> None:
    """Run the console script `kubectl-zenvoy`, which kubectl calls for `kubectl zenvoy`."""
    main("kubectl zenvoy")


if __name__ == "__main__":
    main()
