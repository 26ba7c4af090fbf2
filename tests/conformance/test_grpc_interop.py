"""grpc-go's interoperability tests: HTTP/2 through Envoy's HTTP listener, and TLS that is passed through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.conformance.conftest import Outcome, Record
from tests.conformance.programs import built, listening, run
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy
from tests.ports import free_port

CASES = (
    "cancel_after_begin",
    "cancel_after_first_response",
    "client_streaming",
    "custom_metadata",
    "empty_stream",
    "empty_unary",
    "large_unary",
    "orca_oob",
    "orca_per_rpc",
    "ping_pong",
    "server_streaming",
    "special_status_message",
    "status_code_and_message",
    "timeout_on_sleeping_server",
    "unimplemented_method",
    "unimplemented_service",
)
"""The cases that need neither an account of a cloud nor several servers."""
LEAVES_AT_ONCE = ("cancel_after_begin", "timeout_on_sleeping_server")
"""The client may be gone before its connection is."""
DEADLINE_OF_BOTH, MOST_TRIES = "timeout_on_sleeping_server", 10
"""Client and server have the same deadline of 1 ms. If the server resets the call first, Envoy answers UNAVAILABLE."""
BALANCER = '{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}'
"""Reads the load reports that the cases `orca_…` expect."""
DOMAIN = "interop.test"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    return Authority(folder).sign(folder, f"*.{DOMAIN}")


@pytest.fixture(scope="module")
def servers(certificates: Path) -> dict[str, list[str]]:
    command = [built("grpc-server"), "-port={port}"]
    files = [f"-tls_cert_file={certificates / 'tls.crt'}", f"-tls_key_file={certificates / 'tls.key'}"]
    return {"h2c": command, "tls": [*command, "-use_tls", *files]}


@pytest.fixture(scope="module")
def direct(servers: dict[str, list[str]]) -> Iterator[dict[str, int]]:
    """The ports of the servers without zenvoy."""
    with listening(servers["h2c"]) as plain, listening(servers["tls"]) as secured:
        yield {"h2c": plain, "tls": secured}


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start, servers: dict[str, list[str]]) -> Zenvoy:
    """Provide a service for each case, so that the case begins while its service sleeps."""
    services = [
        {"name": service(protocol, case), "protocol": protocol, "command": command, "hosts": [host(protocol, case)]}
        for protocol, command in servers.items()
        for case in CASES
    ]
    listen = {"http": f"0.0.0.0:{free_port()}"}
    return shared_zenvoy(*services, defaults=SLOW_TO_SLEEP, listen=listen)


def service(protocol: str, case: str) -> str:
    return f"{protocol}-{case.replace('_', '-')}"


def host(protocol: str, case: str) -> str:
    """Return the name that leads to the case's service: for HTTP an address, which the client resolves itself."""
    return f"127.0.1.{1 + CASES.index(case)}" if protocol == "h2c" else f"{service(protocol, case)}.{DOMAIN}"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", ["h2c", "tls"])
def test_grpc_interop_passes_asleep_and_awake(
    z: Zenvoy, direct: dict[str, int], certificates: Path, record: Record, protocol: str, case: str
) -> None:
    name, port = service(protocol, case), {"h2c": z.http_port, "tls": z.tls_port}[protocol]
    through = host(protocol, case) if protocol == "h2c" else LOCAL

    def failure(address: str, port: int) -> str | None:
        command = [built("grpc-client"), f"-test_case={case}", f"-server_host={address}", f"-server_port={port}"]
        if case.startswith("orca"):
            command.append(f"-service_config_json={BALANCER}")
        if protocol == "tls":
            command += ["-use_tls", "-use_test_ca", f"-ca_file={certificates / 'ca.crt'}"]
            command += [f"-server_host_override={host(protocol, case)}"]
        done = run(*command)
        tries = 1
        while case == DEADLINE_OF_BOTH and "{remote_reset}" in done.stdout and tries < MOST_TRIES:
            done, tries = run(*command), tries + 1
        return None if done.returncode == 0 else done.stdout or f"exit code {done.returncode}"

    z.asleep(name)
    asleep = failure(through, port)
    if case not in LEAVES_AT_ONCE:
        assert z.wakes(name) == 1
    z.wake(name)
    outcome = Outcome(failure(LOCAL, direct[protocol]), asleep, failure(through, port))
    record(f"grpc-go interop, {protocol}", outcome)
    assert not outcome.failed(), outcome
