"""The command `zenvoy`, by typer."""

from __future__ import annotations

import typer

from reconciler.cli import care, controller, machine, people, run
from reconciler.cli.exits import DESCRIPTION

app = typer.Typer(
    name="zenvoy",
    help="Any service behind Envoy sleeps at zero and wakes on the first connection, without losing it.\n\n"
    "  zenvoy check services.yaml\n\n  zenvoy up services.yaml\n\n  zenvoy status --watch\n\n"
    "In a cluster:\n\n  zenvoy status -A\n\n  zenvoy explain web -n shop\n" + DESCRIPTION,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(run.up_command)
app.command("check")(run.check)
app.command("reconcile", hidden=True)(run.reconcile)
app.command("controller")(controller.controller)
app.command("status")(people.status)
app.command("wake")(people.wake)
app.command("sleep")(people.sleep)
app.command("pause")(people.pause)
app.command("resume")(people.resume)
app.command("explain")(people.explain)
app.command("doctor")(care.doctor)
app.command("uninstall")(care.uninstall)
app.command("diagram")(machine.diagram_command)
app.command("bootstrap")(machine.bootstrap_command)
app.command("drain-envoy")(machine.drain_envoy_command)


def main() -> None:
    """The console script."""
    app()


def kubectl() -> None:
    """The console script `kubectl-zenvoy`, which kubectl calls for `kubectl zenvoy`."""
    app(prog_name="kubectl zenvoy")


if __name__ == "__main__":
    main()
