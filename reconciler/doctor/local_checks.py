"""`zenvoy doctor` on one machine: what `zenvoy up` needs, and what a running one says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.app.up import CannotStart, envoy_binary
from reconciler.core.text import pluralize
from reconciler.doctor import connections
from reconciler.doctor.findings import Examined, Finding, Level
from reconciler.local.bundled_prometheus import binary
from reconciler.local.services_file import ServicesFile, read
from reconciler.local.sockets import why_taken


def check_machine(world: Mapping[str, Any] | None, file: Path | None) -> list[Examined]:
    """`world` is what the running one says, None when none runs; `file` is the services file, if there is one."""
    found = [_tried("Envoy", lambda: envoy_binary(None)), _prometheus()]
    if file:
        found.append(_file(file, runs=world is not None))
    if world is None:
        remedy = "start it: zenvoy up services.yaml"
        return [*found, Examined("zenvoy up", "not running", (Finding("zenvoy up", "none runs", remedy, Level.NOTE),))]
    return [
        *found,
        Examined("zenvoy up", f"runs with {pluralize(world['services'], 'service')}"),
        _records(world.get("records") or {}),
        _rejected(world.get("rejected") or {}),
        _listens(world.get("listens") or {}),
        *connections.check_connections({"up": world}),
    ]


def _rejected(services: Mapping[str, str]) -> Examined:
    """The services that Envoy rejects a part of."""
    remedy = "change the service in the file; what Envoy accepted last of it stays in force"
    found = [
        Finding(f"service {name}", f"Envoy rejects a part of it: {message}", remedy)
        for name, message in sorted(services.items())
    ]
    return Examined("Envoy's configuration", "rejected in part" if found else "accepted", tuple(found))


def _listens(listens: Mapping[str, Any]) -> Examined:
    """The listen addresses that another program has."""
    remedy = "end that program, or choose another port in the file"
    found = [Finding("listen addresses", str(why), remedy) for why in listens.get("busy", ())]
    return Examined("listen addresses", f"{len(listens.get('on', ()))} in force", tuple(found))


def _records(records: Mapping[str, Any]) -> Examined:
    """The file with the records: whether it was readable at the start, and whether it is written."""
    found = []
    if failing := records.get("failing"):
        what = f"records cannot be written: {failing}; after a restart, services start as if seen for the first time"
        found.append(Finding("records.db", what, "make room on the disk, or make the state directory writable"))
    if aside := records.get("setAside"):
        what = f"it was damaged or unreadable and is kept as {aside}; services started as if seen for the first time"
        remedy = "pause again what was paused; delete the file when it is not needed"
        found.append(Finding("records.db", what, remedy, Level.NOTE))
    return Examined("records", "not written" if failing else "written", tuple(found))


def _tried(check: str, attempt: Callable[[], str]) -> Examined:
    try:
        return Examined(check, attempt())
    except CannotStart as error:
        what, _, remedy = str(error).partition("; ")
        return Examined(check, "missing", (Finding(check, what, remedy),))


def _prometheus() -> Examined:
    found = binary()
    return Examined("Prometheus", found or "not on the PATH; only `zenvoy up --with-prometheus` needs it")


def _file(path: Path, runs: bool) -> Examined:
    """Its mistakes; and, before it runs, ports that somebody else has."""
    found = read(path)
    if not isinstance(found, ServicesFile):
        mistakes = tuple(
            Finding(f"{one.file}:{one.line}", ": ".join(filter(None, (one.where, one.what))), "fix the file")
            for one in found
        )
        return Examined("services file", pluralize(len(mistakes), "mistake"), mistakes)
    listens = (found.listen_http, found.listen_tls, *(entry.spec.listen for entry in found.services))
    taken = [] if runs else [why for address in listens if address and (why := why_taken(address))]
    ports = tuple(Finding(str(path), f"cannot listen on {why}", "end it, or choose another port") for why in taken)
    return Examined("services file", pluralize(len(found.services), "service"), ports)
