"""The command line of the holder, `zenvoy-tproxy`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from tproxy import address
from tproxy.control.stream import KEEPALIVE_SECONDS, TlsFiles
from tproxy.io import tcp
from tproxy.io.listener import INHERITED, CannotListen, Mode
from tproxy.process import HolderExit, HolderProcess, LogStyle, RulesChoice, configure_log
from tproxy.redirect import rules
from tproxy.redirect.self_check import CHECK_SECONDS

TLS = "Mutual TLS with the reconciler"
DEFAULT_LISTEN = {"anyip": "0.0.0.0:18001", "tproxy": "[::]:18001"}
DEFAULT_PORTS = "{}-{}".format(*rules.DEFAULT_PORTS)
SECONDS_MAX = 86_400
DESCRIPTOR_DIGITS_MAX = 7

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


def _check_listen(text: str) -> None:
    if text:
        address.sockaddr(text)


def _check_listen_or_inherited(text: str) -> None:
    number = text.removeprefix(INHERITED)
    if number == text or not number.isdecimal() or len(number) > DESCRIPTOR_DIGITS_MAX:
        _check_listen(text)


def _check_target(text: str) -> None:
    if not text.startswith("unix:") and not all(address.split(text)):
        raise ValueError(f"{text!r} is not a host and port; use for example zenvoy-reconciler.zenvoy-system.svc:18000")


def _check_output_file(path: Path) -> None:
    """Raise ValueError unless the file can be created; a device would be replaced by a file."""
    if (path.exists() and not path.is_file()) or not path.absolute().parent.is_dir():
        raise ValueError(f"'{path}' is not a file in an existing directory; choose another path")


def _check_unix_socket(path: Path) -> None:
    """Raise ValueError unless a Unix socket can be there, now or later."""
    if not path.absolute().parent.is_dir() or not str(path).isprintable():
        raise ValueError(f"'{path}' is not in an existing directory; give the Unix socket of a keeper")


def _option(
    text: str, variable: str, metavar: str | None = None, check: Callable[[Any], object] | None = None, **more: Any
) -> Any:
    """Return an option that is also read from the environment; a ValueError of `check` is reported to the user."""

    def callback(value: Any) -> Any:
        try:
            if check and value is not None:
                check(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        return value

    return typer.Option(help=text, envvar=f"ZENVOY_TPROXY_{variable}", metavar=metavar, callback=callback, **more)


def _seconds(text: str, variable: str, least: int) -> Any:
    def check(number: float) -> None:
        if not least <= number <= SECONDS_MAX:  # rejects NaN
            raise ValueError(f"{number:g} is out of range; choose {least} to {SECONDS_MAX} seconds")

    return _option(text, variable, "SECONDS", check)


def _pem(text: str, variable: str) -> Any:
    return _option(text, variable, "PATH", exists=True, dir_okay=False, rich_help_panel=TLS)


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
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hold the options that precede a command."""


@app.command("run")
def run_command(
    reconciler: Annotated[
        str,
        _option("Address of the reconciler, `host:port` or `unix:path`.", "RECONCILER", "HOST:PORT", _check_target),
    ],
    mode: Annotated[Mode, _option("How connections reach the holder (see above).", "MODE")] = "anyip",
    listen: Annotated[
        str | None,
        _option(
            "Address to listen on. Port 0 chooses a free port; fd:N is an inherited listening socket. "
            "Default: 0.0.0.0:18001, in mode tproxy [::]:18001.",
            *("LISTEN", "IP:PORT", _check_listen_or_inherited),
        ),
    ] = None,
    ports: Annotated[
        str, _option("Mode tproxy: port range of hold addresses.", "PORTS", "FIRST-LAST", rules.parse_ports)
    ] = DEFAULT_PORTS,
    rules_choice: Annotated[
        RulesChoice,
        typer.Option(
            "--rules",
            help="Mode tproxy: install the rules with nft or iptables (auto: nft if available), or keep the rules of "
            "an init step.",
            envvar="ZENVOY_TPROXY_RULES",
        ),
    ] = "auto",
    rules_check_interval: Annotated[
        float,
        _seconds(
            "Mode tproxy: seconds between checks that the rules redirect connections here.", "RULES_CHECK_INTERVAL", 1
        ),
    ] = CHECK_SECONDS,
    metrics: Annotated[
        str | None, _option("Address for /metrics, /healthz and /readyz.", "METRICS", "IP:PORT", _check_listen)
    ] = None,
    drain_timeout: Annotated[
        float, _seconds("Seconds that held and relayed connections have to finish after SIGTERM.", "DRAIN_TIMEOUT", 0)
    ] = 30.0,
    keepalive: Annotated[
        float,
        _seconds(
            "Seconds without data after which the stream to the reconciler is probed. If there is no answer within a "
            "third of that, the holder reconnects.",
            *("KEEPALIVE", 1),
        ),
    ] = KEEPALIVE_SECONDS,
    tcp_keepalive: Annotated[
        float,
        _seconds(
            "Seconds without data after which the peer of a connection is probed. Without an answer for as long again, "
            "the connection is closed.",
            *("TCP_KEEPALIVE", 1),
        ),
    ] = tcp.KEEPALIVE_SECONDS,
    log: Annotated[LogStyle, _option("Format of log lines.", "LOG")] = "plain",
    holder_id: Annotated[
        str | None,
        _option("Id of this holder. Default: from host and listening address, the same after a restart.", "ID"),
    ] = None,
    listen_file: Annotated[
        Path | None,
        _option(
            "Write the listening address to this file once the holder listens.",
            *("LISTEN_FILE", None, _check_output_file),
        ),
    ] = None,
    keeper: Annotated[
        Path | None,
        _option(
            "Unix socket of a keeper (zenvoy-keeper PATH): held connections survive this process.",
            *("KEEPER", "PATH", _check_unix_socket),
        ),
    ] = None,
    health_socket: Annotated[
        Path | None, typer.Option(help="Answer health checks of `zenvoy up` at this Unix socket.", hidden=True)
    ] = None,
    tls_cert: Annotated[Path | None, _pem("Certificate of this holder, PEM.", "TLS_CERT")] = None,
    tls_key: Annotated[Path | None, _pem("Key of the certificate, PEM.", "TLS_KEY")] = None,
    tls_ca: Annotated[Path | None, _pem("CAs of the reconciler's certificate, PEM.", "TLS_CA")] = None,
    tls_server_name: Annotated[
        str | None,
        _option(
            "DNS name in the reconciler's certificate. Default: the host of --reconciler.",
            "TLS_SERVER_NAME",
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

        zenvoy-tproxy run --mode tproxy --ports 20000-32767 --reconciler zenvoy-reconciler.zenvoy-system.svc:18000

        zenvoy-tproxy run --reconciler 127.0.0.1:18000 --listen 0.0.0.0:0 --listen-file tproxy.address --log json

    Exit codes: 0 success; 2 usage error; 3 cannot listen; 4 rules cannot be installed; 5 connections were cut by the
    drain timeout or a second signal.
    """
    configure_log(log)
    process = HolderProcess(
        mode=mode,
        listen=listen or DEFAULT_LISTEN[mode],
        reconciler=reconciler,
        ports=rules.parse_ports(ports),
        rules=rules_choice,
        rules_check_seconds=rules_check_interval,
        metrics=metrics or None,
        drain_timeout=drain_timeout,
        keepalive=keepalive,
        tcp_keepalive=int(tcp_keepalive),
        holder_id=holder_id,
        listen_file=listen_file,
        health_socket=health_socket,
        tls=_tls(tls_cert, tls_key, tls_ca, tls_server_name),
        keeper=keeper,
    )
    try:
        code = process.run()
    except CannotListen as error:
        raise _fail(str(error), HolderExit.CANNOT_LISTEN) from None
    except rules.CannotInstall as error:
        raise _fail(str(error), HolderExit.NO_RULES) from None
    raise typer.Exit(code)


@app.command("rules")
def rules_command(
    family: Annotated[rules.RuleFamily, _option("IPv4, IPv6 or both.", "FAMILY")] = "inet",
    tool: Annotated[
        rules.RuleTool | None,
        typer.Option(help="Tool to write rules for. Default: nft; with --install, the available one."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the holder.", min=1, max=65535)] = 18001,
    ports: Annotated[
        str, _option("Port range of hold addresses.", "PORTS", "FIRST-LAST", rules.parse_ports)
    ] = DEFAULT_PORTS,
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
    redirection = rules.RedirectRules(port, rules.parse_ports(ports), family)
    try:
        if install:
            rules.install(redirection, rules.find_tool(tool or "auto"))
        elif remove:
            rules.remove(port)
        else:
            typer.echo(rules.as_text(redirection, tool or "nft"), nl=False)
    except rules.CannotInstall as error:
        raise _fail(str(error), HolderExit.NO_RULES) from None


def main() -> None:
    """Run the command."""
    app(prog_name="zenvoy-tproxy")
