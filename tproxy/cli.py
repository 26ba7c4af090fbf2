"""The command line of the holder, `zenvoy-tproxy`."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from tproxy import validators
from tproxy.control.stream import KEEPALIVE_SECONDS, TlsFiles
from tproxy.io.listener import CannotListen
from tproxy.process import HolderExit, HolderSettings, configure_log
from tproxy.process import run as run_holder
from tproxy.redirect import netfilter, rules
from tproxy.redirect.self_check import CHECK_SECONDS

TLS = "Mutual TLS with the reconciler"
DEFAULT_LISTEN = {"anyip": "0.0.0.0:18001", "tproxy": "[::]:18001"}

app = typer.Typer(
    name="zenvoy-tproxy",
    help="""Hold connections to sleeping services, and relay them once the service is awake.

    Examples:

        zenvoy-tproxy run --reconciler 127.0.0.1:18000

        zenvoy-tproxy rules --family ip6

    Exit codes: 0 success; 2 usage error. The help of each command lists the others.
    """,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


class ModeName(StrEnum):
    """The ways in which connections reach the holder."""

    anyip = "anyip"
    tproxy = "tproxy"


class LogFormat(StrEnum):
    """The format of log lines."""

    plain = "plain"
    json = "json"


class RulesName(StrEnum):
    """The ways to install the rules of mode tproxy."""

    auto = "auto"
    nft = "nft"
    iptables = "iptables"
    keep = "keep"


class ToolName(StrEnum):
    """The tool that rules are written for."""

    nft = "nft"
    iptables = "iptables"


class FamilyName(StrEnum):
    """The IP versions that rules are for: IPv4, IPv6, both."""

    ip = "ip"
    ip6 = "ip6"
    inet = "inet"


def _env(name: str) -> str:
    return f"ZENVOY_TPROXY_{name}"


def _pem(flag: str, text: str, env: str) -> Any:
    return typer.Option(
        flag, help=text, envvar=_env(env), exists=True, dir_okay=False, metavar="PATH", rich_help_panel=TLS
    )


def _tls(
    certificate: Path | None, key: Path | None, authority: Path | None, server_name: str | None
) -> TlsFiles | None:
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        raise typer.BadParameter("give --tls-cert, --tls-key and --tls-ca together")
    return TlsFiles(certificate, key, authority, server_name)


def _fail(message: str, code: HolderExit) -> typer.Exit:
    typer.echo(f"zenvoy-tproxy: {message}", err=True)
    return typer.Exit(code)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"zenvoy {version('zenvoy')}")
        raise typer.Exit


@app.callback()
def root(
    version_requested: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hold the options that precede a command."""


@app.command("run")
def run_command(
    reconciler: Annotated[
        str,
        typer.Option(
            help="Address of the reconciler, `host:port` or `unix:path`.",
            envvar=_env("RECONCILER"),
            callback=validators.target,
            metavar="HOST:PORT",
        ),
    ],
    mode: Annotated[
        ModeName, typer.Option(help="How connections reach the holder (see above).", envvar=_env("MODE"))
    ] = ModeName.anyip,
    listen: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. Port 0 chooses a free port; fd:N is an inherited listening socket. "
            "Default: 0.0.0.0:18001, in mode tproxy [::]:18001.",
            envvar=_env("LISTEN"),
            callback=lambda text: text and validators.listen_or_inherit(text),
            metavar="IP:PORT",
        ),
    ] = None,
    ports: Annotated[
        str,
        typer.Option(
            help="Mode tproxy: port range of hold addresses.",
            envvar=_env("PORTS"),
            callback=validators.ports,
            metavar="FIRST-LAST",
        ),
    ] = "20000-32767",
    rules_choice: Annotated[
        RulesName,
        typer.Option(
            "--rules",
            help="Mode tproxy: install the rules with nft or iptables (auto: nft if available), or keep the rules "
            "of an init step.",
            envvar=_env("RULES"),
        ),
    ] = RulesName.auto,
    rules_check_interval: Annotated[
        float,
        typer.Option(
            help="Mode tproxy: seconds between checks that the rules redirect connections to the holder.",
            envvar=_env("RULES_CHECK_INTERVAL"),
            callback=lambda number: validators.seconds(number, 1),
            metavar="SECONDS",
        ),
    ] = CHECK_SECONDS,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Address for /metrics, /healthz and /readyz.",
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
            help="Seconds without data after which the stream to the reconciler is probed. If there is no answer "
            "within a third of that, the holder reconnects.",
            envvar=_env("KEEPALIVE"),
            callback=lambda number: validators.seconds(number, 1),
            metavar="SECONDS",
        ),
    ] = KEEPALIVE_SECONDS,
    log: Annotated[LogFormat, typer.Option(help="Format of log lines.", envvar=_env("LOG"))] = LogFormat.plain,
    holder_id: Annotated[
        str | None,
        typer.Option(
            help="Id of this holder. Default: derived from the host and the listening address, the same after a "
            "restart.",
            envvar=_env("ID"),
        ),
    ] = None,
    listen_file: Annotated[
        Path | None,
        typer.Option(
            help="Write the listening address to this file once the holder listens.",
            envvar=_env("LISTEN_FILE"),
            callback=validators.output_file,
        ),
    ] = None,
    keeper: Annotated[
        Path | None,
        typer.Option(
            help="Unix socket of a keeper (zenvoy-keeper PATH): held connections survive this process.",
            envvar=_env("KEEPER"),
            callback=validators.unix_socket,
            metavar="PATH",
        ),
    ] = None,
    health_socket: Annotated[
        Path | None, typer.Option(help="Answer health checks of `zenvoy up` at this Unix socket.", hidden=True)
    ] = None,
    tls_cert: Annotated[Path | None, _pem("--tls-cert", "Certificate of this holder, PEM.", "TLS_CERT")] = None,
    tls_key: Annotated[Path | None, _pem("--tls-key", "Key of the certificate, PEM.", "TLS_KEY")] = None,
    tls_ca: Annotated[Path | None, _pem("--tls-ca", "CAs of the reconciler's certificate, PEM.", "TLS_CA")] = None,
    tls_server_name: Annotated[
        str | None,
        typer.Option(
            help="DNS name in the reconciler's certificate. Default: the host of --reconciler.",
            envvar=_env("TLS_SERVER_NAME"),
            rich_help_panel=TLS,
        ),
    ] = None,
) -> None:
    """Run the holder in the foreground.

    Mode **anyip**: an Envoy in the same network namespace dials addresses in 127.64.0.0/10, which Linux delivers to
    a socket on 0.0.0.0. Requires no privileges. Mode **tproxy**: a rule redirects a range of ports on the addresses of
    this machine to the socket, so that Envoy may run elsewhere. Requires CAP_NET_ADMIN.

    SIGTERM drains: no connection is accepted any more, held connections are released or time out, relayed ones finish.
    A second signal ends the process at once.

    Examples:

        zenvoy-tproxy run --reconciler 127.0.0.1:18000

        zenvoy-tproxy run --mode tproxy --ports 20000-32767 --reconciler zenvoy.zenvoy:18000

        zenvoy-tproxy run --reconciler 127.0.0.1:18000 --listen 0.0.0.0:0 --listen-file tproxy.address --log json

    Exit codes: 0 success; 2 usage error; 3 cannot listen; 4 rules cannot be installed; 5 connections were cut by the
    drain timeout or a second signal.
    """
    configure_log(log.value)
    settings = HolderSettings(
        mode=mode.value,
        listen=listen or DEFAULT_LISTEN[mode.value],
        reconciler=reconciler,
        ports=rules.parse_ports(ports),
        rules=rules_choice.value,
        rules_check_seconds=rules_check_interval,
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
        raise _fail(str(error), HolderExit.CANNOT_LISTEN) from None
    except netfilter.CannotInstall as error:
        raise _fail(str(error), HolderExit.NO_RULES) from None
    raise typer.Exit(code)


@app.command("rules")
def rules_command(
    family: Annotated[FamilyName, typer.Option(help="IPv4, IPv6 or both.", envvar=_env("FAMILY"))] = FamilyName.inet,
    tool: Annotated[
        ToolName | None, typer.Option(help="Tool to write rules for. Default: nft; with --install, the available one.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the holder.", min=1, max=65535)] = 18001,
    ports: Annotated[
        str,
        typer.Option(
            help="Port range of hold addresses.", envvar=_env("PORTS"), callback=validators.ports, metavar="FIRST-LAST"
        ),
    ] = "20000-32767",
    install: Annotated[bool, typer.Option("--install", help="Install the rules, replacing existing ones.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the rules.")] = False,
) -> None:
    """Show, install or remove the rules of mode tproxy.

    Examples:

        zenvoy-tproxy rules

        zenvoy-tproxy rules --family ip6 --tool iptables

        zenvoy-tproxy rules --install --port 18001        (as root, in an init step; then use run --rules keep)

    Exit codes: 0 success; 2 usage error; 4 rules cannot be installed or removed.
    """
    if install and remove:
        raise typer.BadParameter("choose one of --install and --remove")
    redirection = rules.RedirectRules(port, rules.parse_ports(ports), family.value)
    try:
        if install:
            netfilter.install(redirection, netfilter.find_tool(tool.value if tool else "auto"))
        elif remove:
            netfilter.remove(port)
        else:
            typer.echo(rules.as_text(redirection, tool.value if tool else "nft"), nl=False)
    except netfilter.CannotInstall as error:
        raise _fail(str(error), HolderExit.NO_RULES) from None


def main() -> None:
    """Run the command."""
    app(prog_name="zenvoy-tproxy")
