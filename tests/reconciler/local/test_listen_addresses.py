"""Listen addresses that another program uses."""

from __future__ import annotations

import socket
from pathlib import Path

from reconciler.core.spec import Spec
from reconciler.local.listen_addresses import ListenAddresses
from reconciler.local.services_file import ServicesFile, read
from tests.ports import free_port


async def routed(tmp_path: Path, top: str, at: str) -> tuple[list[Spec], list[Spec]]:
    """Return the services with and without an address, of an HTTP and a TCP service at this address."""
    path = tmp_path / "services.yaml"
    services = [
        f"{{name: {name}, protocol: {protocol}, listen: '{at}', command: [sleep, '1'], port: {port}}}"
        for name, protocol, port in (("web", "http", 8001), ("db", "tcp", 8002))
    ]
    found = []
    for service in services:
        path.write_text(f"{top}services:\n- {service}\n")
        file = read(path)
        assert isinstance(file, ServicesFile), file
        addresses = ListenAddresses(tmp_path)
        await addresses.probe(file)
        addresses.choose(file)
        found.append(addresses.routed(file)[2:])
    (web, no_web), (db, no_db) = found
    return [*web, *db], [*no_web, *no_db]


async def test_routed_http_service_without_its_port_keeps_its_hosts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        served, nowhere = await routed(tmp_path, f"listen: {{http: '127.0.0.1:{free_port()}'}}\n", at)
        assert [(spec.name, spec.listen) for spec in served] == [("web", None)]
        assert [spec.name for spec in nowhere] == ["db"]
        served, nowhere = await routed(tmp_path, "", at)
        assert (served, [spec.name for spec in nowhere]) == ([], ["web", "db"])
