"""Checks of a reconciler's live data (`GET /v1/overview`): connections, samples and certificates. Pure.

On one machine there is one reconciler; in a cluster one for each replica, and an Envoy is connected to any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from reconciler.core.reasons import Reason
from reconciler.core.text import pluralize
from reconciler.doctor.findings import CheckResult, Finding, FindingCode

if TYPE_CHECKING:
    from reconciler.cluster_client.controllers import InstalledPod

Overview = Mapping[str, Any]
"""The live data of one reconciler."""
TRANSIENT_CAUSES = frozenset({Reason.FIRST_SAMPLE, Reason.ENVOY_NEW, Reason.ENVOY_RESTARTED, Reason.LEADER_NEW})
"""Causes of unknown usage that end without an action."""
STATISTICS_REMEDY = "check that the reconciler can reach each Envoy's statistics port (9902)"
PROMETHEUS_REMEDY = (
    "check in Prometheus that the target of every Envoy is up and has the series envoy_server_uptime and "
    "envoy_cluster_upstream_*, and that no metric_relabel_configs (metricRelabelings of a ServiceMonitor) drop them"
)
RECENTLY_DISCONNECTED = (
    "it disconnected less than 5 minutes ago and is still expected; until it is back or forgotten, no service sleeps"
)
NO_RULES = "no TPROXY rules redirect connections to it: it cannot wake sleeping services"
INSTALL_RULES = "run `zenvoy-tproxy rules --install` as root; in a cluster delete its pod, whose init step does so"
RECONNECT = "start it again, or wait until it is forgotten"
DESCRIBE = "kubectl describe pod {name} -n {system}"
READ_LOGS = (
    "kubectl logs {name} -n {system} --all-containers; check that a NetworkPolicy lets it reach a reconciler's gRPC "
    "port, and that its certificates are signed by the same authority (docs/troubleshooting.md)"
)
EXPIRES_SOON = timedelta(days=7)
"""Certificates are renewed a month before they expire; one that has less time left was not renewed."""
RENEW = "see the log of the reconcilers (self-issued) or of cert-manager, or renew your own: docs/how-to/mtls.md"
BUSY_REMEDY = "correct the check, or what it asks: docs/how-to/work-without-a-client.md"
PLAINTEXT = (
    "the gRPC port is open without TLS: every process that reaches it can read all routes, wake services and keep "
    "them awake"
)


def check_connections(overviews: Mapping[str, Overview]) -> list[CheckResult]:
    """Return the results for Envoys, holders and samples; `overviews` is keyed by the reconciler's name."""
    return [_check_envoys(overviews), _check_holders(overviews), _check_samples(overviews)]


def _check_envoys(overviews: Mapping[str, Overview]) -> CheckResult:
    found: list[Finding] = []
    connected = {
        envoy["id"] for overview in overviews.values() for envoy in overview["envoys"] if not envoy.get("away")
    }
    if not connected:
        message = "no Envoy is connected: clients cannot reach services through zenvoy, and no service sleeps"
        remedy = "check the proxy's pods and their logs; connect an external Envoy with `zenvoy bootstrap`"
        found.append(Finding(FindingCode.NO_ENVOY, "Envoys", message, remedy))
    for name, overview in overviews.items():
        for envoy in overview["envoys"]:
            place = f"Envoy {envoy['id']}"
            if envoy.get("away") and envoy["id"] not in connected:
                found.append(Finding(FindingCode.ENVOY_DISCONNECTED, place, RECENTLY_DISCONNECTED, RECONNECT))
            elif nack := envoy.get("lastNack"):
                message = f"it rejected a configuration from {name} at {nack['at']}: {nack['message']}"
                remedy = "docs/runbooks/EnvoyRejectsConfig.md; it keeps its previous configuration"
                found.append(Finding(FindingCode.CONFIGURATION_REJECTED, place, message, remedy))
    return CheckResult("Envoys", f"{len(connected)} connected", tuple(found))


def _check_holders(overviews: Mapping[str, Overview]) -> CheckResult:
    holders = [holder for overview in overviews.values() for holder in overview["holders"]]
    connected = {holder["id"]: holder["mode"] for holder in holders if holder["connected"]}
    found: list[Finding] = []
    if not connected:
        message = "no holder is connected: connections cannot wake services, and no service sleeps"
        found.append(Finding(FindingCode.NO_HOLDER, "holders", message, "docs/runbooks/HolderDisconnected.md"))
    found += [
        Finding(FindingCode.HOLDER_DISCONNECTED, f"holder {name}", RECENTLY_DISCONNECTED, RECONNECT)
        for name in sorted({holder["id"] for holder in holders} - connected.keys())
    ]
    modes = sorted(set(connected.values()))
    if len(modes) > 1:
        message = f"holders use different modes ({', '.join(modes)}), but a hold address is valid in one mode only"
        remedy = "use one mode for all, with the chart's value `holdMode`"
        found.append(Finding(FindingCode.HOLD_MODES_DIFFER, "holders", message, remedy))
    found += [
        Finding(FindingCode.REDIRECT_RULES_MISSING, f"holder {holder['id']}", NO_RULES, INSTALL_RULES)
        for holder in holders
        if holder["connected"] and holder["mode"] == "tproxy" and holder.get("rules") is False
    ]
    summary = f"{len(connected)} connected" + (f", mode {modes[0]}" if len(modes) == 1 else "")
    return CheckResult("holders", summary, tuple(found))


def _check_samples(overviews: Mapping[str, Overview]) -> CheckResult:
    """Check each reconciler that takes samples; in a cluster that is the leader."""
    found, summaries = [], []
    for name, overview in overviews.items():
        if not overview["ready"]:
            message = "it does not know every service yet, and answers no Envoy until it does"
            remedy = "see its log; in a cluster see also the Ready condition of each ScaledService"
            found.append(Finding(FindingCode.RECONCILER_NOT_READY, name, message, remedy))
        standing = overview["standing"] or {"leads": True}
        if standing["leads"]:
            sample = overview["sample"]
            age = sample["ageSeconds"]
            summaries.append(f"by {sample['source']}, {'none yet' if age is None else f'{age:.0f} s old'}")
            found += _unknown_usage(name, sample, standing)
    return CheckResult("samples", "; ".join(summaries) or "there is no leader", tuple(found))


def _unknown_usage(name: str, sample: Mapping[str, Any], standing: Mapping[str, Any]) -> Iterator[Finding]:
    """Report an unknown that lasts: what the leader does not know of other replicas, or of Envoys."""
    if standing.get("unknown") and standing.get("unknownReason") not in TRANSIENT_CAUSES:
        message = f"no service sleeps: {standing['unknown']}"
        remedy = "check that replicas can reach one another at the gRPC port (18000)"
        yield Finding(FindingCode.REPLICAS_UNKNOWN, name, message, remedy)
    elif sample["unknown"] and sample.get("unknownReason") not in TRANSIENT_CAUSES | {Reason.NO_ENVOY}:
        message = f"no service sleeps, because usage is unknown: {sample['unknown']}"
        remedy = PROMETHEUS_REMEDY if sample.get("provider") == "prometheus" else STATISTICS_REMEDY
        yield Finding(FindingCode.SAMPLES_UNKNOWN, name, message, remedy)


def check_busy_checks(overviews: Mapping[str, Overview]) -> CheckResult:
    """Find services that stay awake because their busy check or their annotation has no valid answer."""
    failed = {name: message for one in overviews.values() for name, message in one.get("failedBusyChecks", {}).items()}
    found = tuple(
        Finding(FindingCode.BUSY_CHECK_FAILED, f"service {name}", f"it never sleeps: {message}", BUSY_REMEDY)
        for name, message in sorted(failed.items())
    )
    return CheckResult("busy checks", f"{len(found)} failing" if found else "none failing", found)


def check_proxy_pods(system: str, pods: Sequence[InstalledPod], overviews: Mapping[str, Overview]) -> CheckResult:
    """Find proxy pods whose Envoy or holder is not connected; `overviews` are those of all reconcilers.

    An Envoy's node id and a holder's id are their pod's name.
    """
    joined = {
        "Envoy": {envoy["id"] for overview in overviews.values() for envoy in overview["envoys"]},
        "holder": {holder["id"] for overview in overviews.values() for holder in overview["holders"]},
    }
    found = []
    for pod in pods:
        missing = [part for part, names in joined.items() if pod.name not in names]
        if missing:
            parts = f"its {missing[0]} is not" if len(missing) == 1 else "neither its Envoy nor its holder is"
            message = f"{parts} connected to a reconciler: {pod.waiting_reason}"
            remedy = (READ_LOGS if pod.phase == "Running" else DESCRIBE).format(name=pod.name, system=system)
            found.append(Finding(FindingCode.PROXY_NOT_JOINED, f"pod {system}/{pod.name}", message, remedy))
    return CheckResult("proxies", pluralize(len(pods), "pod"), tuple(found))


def check_certificates(overviews: Mapping[str, Overview], now: datetime) -> CheckResult:
    """Find reconcilers without TLS, and certificates that were not renewed in time."""
    found: list[Finding] = []
    expiries: list[datetime] = []
    for name, overview in overviews.items():
        standing = overview.get("standing") or {}
        if standing.get("plaintext"):
            remedy = "helm upgrade with mtls.enabled=true: docs/how-to/mtls.md"
            found.append(Finding(FindingCode.PLAINTEXT, name, PLAINTEXT, remedy))
        for part, text in standing.get("certificates", {}).items():
            expiries.append(end := datetime.fromisoformat(text))
            if end - now < EXPIRES_SOON:
                verb = "expired" if end <= now else "expires"
                message = f"the certificate of {part} {verb} at {end:%Y-%m-%d %H:%M} UTC"
                found.append(Finding(FindingCode.CERTIFICATE_EXPIRES, name, message, RENEW))
    summary = f"valid until {min(expiries):%Y-%m-%d}" if expiries else "none"
    return CheckResult("certificates", summary, tuple(found))
