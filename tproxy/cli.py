"""`zenvoy-tproxy`: the holder's command line. Imports nothing of the reconciler."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from tproxy import validators
from tproxy.control.stream import KEEPALIVE_SECONDS
from tproxy.control.tls import Tls
from tproxy.io.listener import CannotListen
from tproxy.process import Exit, Settings, configure_log
from tproxy.process import run as run_holder
from tproxy.redirect import netfilter, rules
from tproxy.redirect.self_check import LOOK_SECONDS

TLS = "Mutual TLS with the reconciler"
DEFAULT_LISTEN = {"anyip": "0.0.0.0:18001", "tproxy": "[::]:18001"}

app = typer.Typer(
    name="zenvoy-tproxy",
    help="""Keeps connections to sleeping services waiting, and relays them once their service is awake.

    Examples:

        zenvoy-tproxy run --reconciler 127.0.0.1:18000

        zenvoy-tproxy rules --family ip6

    Exit codes: 0 ended in order; 2 wrong usage; the others are in the help of each command.
    """,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


class ModeName(StrEnum):
    """How connections get here."""

    anyip = "anyip"
    tproxy = "tproxy"


class LogStyle(StrEnum):
    """How log lines look."""

    plain = "plain"
    json = "json"


class RulesName(StrEnum):
    """Who installs the rules of mode tproxy."""

    auto = "auto"
    nft = "nft"
    iptables = "iptables"
    keep = "keep"


class ToolName(StrEnum):
    """What rules are written for."""

    nft = "nft"
    iptables = "iptables"


class FamilyName(StrEnum):
    """Which IP the rules are for: IPv4, IPv6, both."""

    ip = "ip"
    ip6 = "ip6"
    inet = "inet"


def _env(name: str) -> str:
    return f"ZENVOY_TPROXY_{name}"


def _pem(flag: str, text: str, env: str) -> Any:
    return typer.Option(
        flag, help=text, envvar=_env(env), exists=True, dir_okay=False, metavar="PATH", rich_help_panel=TLS
    )


def _tls(certificate: Path | None, key: Path | None, authority: Path | None, server_name: str | None) -> Tls | None:
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        raise typer.BadParameter("give --tls-cert, --tls-key and --tls-ca together")
    return Tls(certificate, key, authority, server_name)


def _complain(message: str, code: Exit) -> typer.Exit:
    typer.echo(f"zenvoy-tproxy: {message}", err=True)
    return typer.Exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zenvoy {version('zenvoy')}")
        raise typer.Exit


@app.callback()
def root(
    wanted: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Accept the options that precede a command."""


@app.command("run")
def run_command(
    reconciler: Annotated[
        str,
        typer.Option(
            help="Where the reconciler is, `host:port` or `unix:path`.",
            envvar=_env("RECONCILER"),
            callback=validators.target,
            metavar="HOST:PORT",
        ),
    ],
    mode: Annotated[
        ModeName, typer.Option(help="How connections get here (see above).", envvar=_env("MODE"))
    ] = ModeName.anyip,
    listen: Annotated[
        str | None,
        typer.Option(
            help="Where to listen; port 0 takes any, fd:N is a listening socket that was handed down. "
            "Default: 0.0.0.0:18001, in mode tproxy [::]:18001.",
            envvar=_env("LISTEN"),
            callback=lambda text: text and validators.listen_or_inherit(text),
            metavar="IP:PORT",
        ),
    ] = None,
    ports: Annotated[
        str,
        typer.Option(
            help="Mode tproxy: the ports of hold addresses.",
            envvar=_env("PORTS"),
            callback=validators.ports,
            metavar="FIRST-LAST",
        ),
    ] = "20000-32767",
    rules_choice: Annotated[
        RulesName,
        typer.Option(
            "--rules",
            help="Mode tproxy: install the rules by nft or iptables (auto: nft if there is one), or keep what an init "
            "step has installed.",
            envvar=_env("RULES"),
        ),
    ] = RulesName.auto,
    look_at_rules: Annotated[
        float,
        typer.Option(
            help="Mode tproxy: seconds between two looks at whether the rules divert connections here.",
            envvar=_env("LOOK_AT_RULES"),
            callback=lambda number: validators.seconds(number, 1),
            metavar="SECONDS",
        ),
    ] = LOOK_SECONDS,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Serve /metrics, /healthz and /readyz here.",
            envvar=_env("METRICS"),
            callback=lambda text: text and validators.listen(text),
            metavar="IP:PORT",
        ),
    ] = None,
    drain_timeout: Annotated[
        float,
        typer.Option(
            help="Seconds that held and relayed connections have to finish after SIGTERM.",
            envvar=_env("DRAIN_TIMEOUT"),
            callback=lambda number: validators.seconds(number, 0),
            metavar="SECONDS",
        ),
    ] = 30.0,
    keepalive: Annotated[
        float,
        typer.Option(
            help="Seconds after which a silent stream to the reconciler is probed; one that does not answer within a "
            "third of that is given up, and another is tried.",
            envvar=_env("KEEPALIVE"),
            callback=lambda number: validators.seconds(number, 1),
            metavar="SECONDS",
        ),
    ] = KEEPALIVE_SECONDS,
    log: Annotated[LogStyle, typer.Option(help="How log lines look.", envvar=_env("LOG"))] = LogStyle.plain,
    holder_id: Annotated[
        str | None,
        typer.Option(
            help="What to be called by the reconciler. Default: by host and address listened on, the same after a "
            "restart.",
            envvar=_env("ID"),
        ),
    ] = None,
    listen_file: Annotated[
        Path | None,
        typer.Option(
            help="Write the address listened on to this file, once listening.",
            envvar=_env("LISTEN_FILE"),
            callback=validators.beside_others,
        ),
    ] = None,
    keeper: Annotated[
        Path | None,
        typer.Option(
            help="The Unix socket of a keeper (zenvoy-keeper PATH): connections that wait outlive this process.",
            envvar=_env("KEEPER"),
            callback=validators.unix_socket,
            metavar="PATH",
        ),
    ] = None,
    health_socket: Annotated[
        Path | None, typer.Option(help="Answer health checks at this Unix socket; `zenvoy up` asks there.", hidden=True)
    ] = None,
    tls_cert: Annotated[Path | None, _pem("--tls-cert", "This holder's certificate, PEM.", "TLS_CERT")] = None,
    tls_key: Annotated[Path | None, _pem("--tls-key", "Its key.", "TLS_KEY")] = None,
    tls_ca: Annotated[Path | None, _pem("--tls-ca", "CAs of the reconciler's certificate.", "TLS_CA")] = None,
    tls_server_name: Annotated[
        str | None,
        typer.Option(
            help="What the reconciler's certificate is for. Default: the host of --reconciler.",
            envvar=_env("TLS_SERVER_NAME"),
            rich_help_panel=TLS,
        ),
    ] = None,
) -> None:
    """Run the holder in the foreground.

    Mode **anyip**: an Envoy in the same network namespace dials addresses in 127.64.0.0/10, which Linux delivers to
    a socket on 0.0.0.0. No privilege. Mode **tproxy**: a rule diverts a range of ports on this machine's addresses to
    the socket, so that Envoy may be elsewhere. Needs CAP_NET_ADMIN.

    SIGTERM drains: nothing new is accepted, held connections are released or time out, relayed ones finish. A second
    signal ends at once.

    Examples:

        zenvoy-tproxy run --reconciler 127.0.0.1:18000

        zenvoy-tproxy run --mode tproxy --ports 20000-32767 --reconciler zenvoy.zenvoy:18000

        zenvoy-tproxy run --reconciler 127.0.0.1:18000 --listen 0.0.0.0:0 --listen-file tproxy.address --log json

    Exit codes: 0 ended in order; 2 wrong usage; 3 cannot listen; 4 rules cannot be installed; 5 connections were cut
    by the drain time-out or a second signal.
    """
    configure_log(log.value)
    settings = Settings(
        mode=mode.value,
        listen=listen or DEFAULT_LISTEN[mode.value],
        reconciler=reconciler,
        ports=rules.parse_ports(ports),
        rules=rules_choice.value,
        look_at_rules=look_at_rules,
        metrics=metrics or None,
        drain_timeout=drain_timeout,
        keepalive=keepalive,
        holder_id=holder_id,
        listen_file=listen_file,
        health_socket=health_socket,
        tls=_tls(tls_cert, tls_key, tls_ca, tls_server_name),
        keeper=keeper,
    )
    try:
        code = run_holder(settings)
    except CannotListen as error:
        raise _complain(str(error), Exit.CANNOT_LISTEN) from None
    except netfilter.CannotInstall as error:
        raise _complain(str(error), Exit.NO_RULES) from None
    raise typer.Exit(code)


@app.command("rules")
def rules_command(
    family: Annotated[FamilyName, typer.Option(help="IPv4, IPv6 or both.", envvar=_env("FAMILY"))] = FamilyName.inet,
    tool: Annotated[
        ToolName | None, typer.Option(help="Write them for this tool. Default: nft; with --install, what is there.")
    ] = None,
    port: Annotated[int, typer.Option(help="The holder's port.", min=1, max=65535)] = 18001,
    ports: Annotated[
        str,
        typer.Option(
            help="The ports of hold addresses.", envvar=_env("PORTS"), callback=validators.ports, metavar="FIRST-LAST"
        ),
    ] = "20000-32767",
    install: Annotated[bool, typer.Option("--install", help="Install them, in place of what is there.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove them.")] = False,
) -> None:
    """Show the rules of mode tproxy; install or remove them.

    Examples:

        zenvoy-tproxy rules

        zenvoy-tproxy rules --family ip6 --tool iptables

        zenvoy-tproxy rules --install --port 18001        (as root, in an init step; then run with --rules keep)

    Exit codes: 0 done; 2 wrong usage; 4 rules cannot be installed or removed.
    """
    if install and remove:
        raise typer.BadParameter("choose one of --install and --remove")
    wanted = rules.Rules(port, rules.parse_ports(ports), family.value)
    try:
        if install:
            netfilter.install(wanted, netfilter.find_tool(tool.value if tool else "auto"))
        elif remove:
            netfilter.remove(port)
        else:
            typer.echo(rules.text(wanted, tool.value if tool else "nft"), nl=False)
    except netfilter.CannotInstall as error:
        raise _complain(str(error), Exit.NO_RULES) from None


def main() -> None:
    """The console script's entry."""
    app(prog_name="zenvoy-tproxy")
