"""Every file in golden/ is a configuration; golden/out/ has what Envoy is given for it, as betterproto2 reads it.

`ZENVOY_GOLDEN=write` writes the outputs again, and removes those without an input.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.xds.oracle import MESSAGES
from xds import ir
from xds.names import ORDER
from xds.resources.snapshot import Snapshot

GOLDEN = Path(__file__).with_name("golden")
OUT = GOLDEN / "out"
CASES = sorted(GOLDEN.glob("*.yaml"))
WRITE = os.environ.get("ZENVOY_GOLDEN") == "write"


def address(text: str) -> ir.SocketAddress:
    host, _, port = text.rpartition(":")
    return ir.SocketAddress(host.strip("[]"), int(port))


def lists(rule: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(value) for name, value in rule.items() if isinstance(value, list)}


def world(path: Path) -> Snapshot:
    """Return the world that a golden input describes."""
    document = yaml.safe_load(path.read_text())
    listen = {name: address(text) for name, text in document.get("listen", {}).items()}
    services = [
        ir.Upstream(
            name=service["name"],
            protocol=ir.ServiceProtocol(service["protocol"]),
            domains=tuple(service.get("domains", ())),
            listen=address(service["listen"]) if "listen" in service else None,
            trusted_hops=service.get("trusted_hops", 0),
            ignore=tuple(ir.IgnoreMatch(**{**rule, **lists(rule)}) for rule in service.get("ignore", ())),
        )
        for service in document["services"]
    ]
    made = Snapshot()
    options = ir.ListenerOptions(**document.get("options", {}))
    made.configure(ir.Listen(**listen, options=options), services)
    for service in document["services"]:
        held = "held" in service
        if "endpoints" in service or held:
            made.route(service["name"], tuple(map(address, service["held" if held else "endpoints"])), held)
    return made


def readable(made: Snapshot) -> str:
    """Return all resources as YAML."""
    document: dict[str, Any] = {}
    for type_url in ORDER:
        table = made.table(type_url)
        resources = {name: resource for name in table if (resource := table.get(name))}
        document[type_url.rpartition(".")[2]] = {
            name: MESSAGES[type_url].parse(resource.body).to_dict() for name, resource in resources.items()
        }
    return str(yaml.safe_dump(document, sort_keys=False, width=120))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_input_gives_its_output(path: Path) -> None:
    expected, got = OUT / path.name, readable(world(path))
    if WRITE:
        OUT.mkdir(exist_ok=True)
        expected.write_text(got)
    assert got == expected.read_text()


def test_golden_outputs_none_is_stale() -> None:
    stale = {path.name for path in OUT.glob("*")} - {path.name for path in CASES}
    if WRITE:
        for name in stale:
            (OUT / name).unlink()
        stale = set()
    assert not stale
