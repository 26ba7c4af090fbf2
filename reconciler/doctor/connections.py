"""What reconcilers say of themselves (`GET /v1/world`): who is connected to them, and whether samples can be believed.

Pure. One reconciler on one machine; in a cluster, one each replica: an Envoy is connected to any of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from reconciler.core.text import pluralize
from reconciler.doctor.findings import Examined, Finding

if TYPE_CHECKING:
    from reconciler.cluster_client.controllers import Pod

World = Mapping[str, Any]
"""By the name of its reconciler."""
PASSING = (
    "no sample yet",
    "only one sample so far",
    "was not in the sample before",
    "no complete sample yet",
    "restarted",
    "leads for a short time only",
)
"""Doubts that go by themselves."""
NO_ENVOY = "no Envoy is connected"
REACH = "see that the reconciler can reach each Envoy's statistics port (9902)"
SCRAPE = (
    "see in Prometheus that every Envoy's target is up and has envoy_server_uptime and envoy_cluster_upstream_* series"
)
LOST = re.compile(r"Prometheus lacks (.+) of it")


def check_connections(worlds: Mapping[str, World]) -> list[Examined]:
    """One line each for Envoys, holders, samples."""
    return [_envoys(worlds), _holders(worlds), _samples(worlds)]


def _envoys(worlds: Mapping[str, World]) -> Examined:
    found: list[Finding] = []
    connected = [envoy for world in worlds.values() for envoy in world["envoys"] if not envoy.get("away")]
    back = {envoy["id"] for envoy in connected}
    if not connected:
        found.append(
            Finding(
                "Envoys",
                "none is connected: nobody can reach a service through zenvoy, and none is put to sleep",
                "look at the proxy's pods and their logs; an Envoy of your own joins with `zenvoy bootstrap`",
            )
        )
    for name, world in worlds.items():
        for envoy in world["envoys"]:
            if envoy.get("away") and envoy["id"] not in back:
                what = "it went away less than 5 minutes ago and still counts: no service is put to sleep meanwhile"
                found.append(Finding(f"Envoy {envoy['id']}", what, "start it again, or wait until it is forgotten"))
            elif nack := envoy.get("lastNack"):
                what = f"it rejected a configuration of {name} at {nack['at']}: {nack['message']}"
                remedy = "docs/runbooks/EnvoyRejectsConfig.md; it goes on with what it had"
                found.append(Finding(f"Envoy {envoy['id']}", what, remedy))
    return Examined("Envoys", f"{len(back)} connected", tuple(found))


def _holders(worlds: Mapping[str, World]) -> Examined:
    holders = [holder for world in worlds.values() for holder in world["holders"]]
    connected = {holder["id"]: holder["mode"] for holder in holders if holder["connected"]}
    found: list[Finding] = []
    if not connected:
        what = "none is connected: a service that sleeps cannot be woken by a connection, and none is put to sleep"
        found.append(Finding("holders", what, "docs/runbooks/HolderDisconnected.md"))
    for name in sorted({holder["id"] for holder in holders} - connected.keys()):
        what = "it went away less than 5 minutes ago and still counts: no service is put to sleep meanwhile"
        found.append(Finding(f"holder {name}", what, "start it again, or wait until it is forgotten"))
    modes = sorted(set(connected.values()))
    if len(modes) > 1:
        what = f"they run in different modes ({', '.join(modes)}), but a hold address leads to one of them only"
        found.append(Finding("holders", what, "run all with the chart's one value `holdMode`"))
    found += _rules(worlds)
    said = f"{len(connected)} connected" + (f", mode {modes[0]}" if len(modes) == 1 else "")
    return Examined("holders", said, tuple(found))


def _rules(worlds: Mapping[str, World]) -> Iterator[Finding]:
    """A connection that Envoy sends to a hold address must arrive: without the rules of mode tproxy none does."""
    for world in worlds.values():
        for holder in world["holders"]:
            if holder["connected"] and holder["mode"] == "tproxy" and holder.get("rules") is False:
                what = "no TPROXY rules divert connections to it: what sleeps cannot be woken through it"
                remedy = (
                    "`zenvoy-tproxy rules --install` as root; in a cluster delete its pod, whose init step does that"
                )
                yield Finding(f"holder {holder['id']}", what, remedy)


def _samples(worlds: Mapping[str, World]) -> Examined:
    """In a cluster only the leader takes samples."""
    found, said = [], []
    for name, world in worlds.items():
        if not world["ready"]:
            what = "it does not know every service yet, and answers no Envoy before that"
            found.append(Finding(name, what, "look at its log; in a cluster, at the Ready condition of ScaledServices"))
        standing = world["standing"] or {"leads": True}
        if standing["leads"]:
            sample = world["sample"]
            age = sample["ageSeconds"]
            said.append(f"by {sample['source']}, {'none yet' if age is None else f'{age:.0f} s old'}")
            found += _doubts(name, sample, standing.get("unknown"))
    return Examined("samples", "; ".join(said) or "nobody leads", tuple(found))


def _doubts(name: str, sample: Mapping[str, Any], others: str | None) -> Iterator[Finding]:
    """`others`: what the leader does not know of other replicas."""
    unknown = sample["unknown"]
    if others and not _passes(others):
        remedy = "see that replicas reach one another at the gRPC port (18000)"
        yield Finding(name, f"nothing is put to sleep: {others}", remedy)
    elif unknown and unknown != NO_ENVOY and not _passes(unknown):
        by_prometheus = str(sample["source"]).startswith("Prometheus")
        remedy = _scraped(unknown) if by_prometheus else REACH
        yield Finding(name, f"nothing is put to sleep, since samples are in doubt: {unknown}", remedy)


def _scraped(unknown: str) -> str:
    """What to do in Prometheus."""
    if lost := LOST.search(unknown):
        rules = "metric_relabel_configs (metricRelabelings of a ServiceMonitor)"
        return f"take away the rule of Prometheus' {rules} that drops {lost[1]}"
    return SCRAPE


def _passes(doubt: str) -> bool:
    return any(words in doubt for words in PASSING)


DESCRIBE = "kubectl describe pod {name} -n {system}"
LOOK = (
    "kubectl logs {name} -n {system} --all-containers: can it reach a reconciler at its gRPC port (NetworkPolicy), "
    "and are its certificates of that CA (docs/troubleshooting.md, A proxy pod is not ready)?"
)


def check_proxy_pods(system: str, pods: Iterable[Pod], worlds: Mapping[str, World]) -> Examined:
    """`worlds` are of all reconcilers: who is missing at one may be at another."""
    joined = {
        "Envoy": {envoy["id"] for world in worlds.values() for envoy in world["envoys"]},
        "holder": {holder["id"] for world in worlds.values() for holder in world["holders"]},
    }
    listed = list(pods)
    found = [finding for pod in listed for finding in _check_pod(system, pod, joined)]
    return Examined("proxies", pluralize(len(listed), "pod"), tuple(found))


def _check_pod(system: str, pod: Pod, joined: Mapping[str, set[str]]) -> Iterator[Finding]:
    name = pod.metadata["name"]
    missing = [part for part, names in joined.items() if name not in names]
    if not missing:
        return
    who = f"its {missing[0]} is not" if len(missing) == 1 else "neither its Envoy nor its holder is"
    remedy = LOOK if pod.status.get("phase") == "Running" else DESCRIBE
    yield Finding(
        f"pod {system}/{name}", f"{who} known to a reconciler: {pod.waits_for}", remedy.format(name=name, system=system)
    )


SOON = timedelta(days=7)
"""Certificates are renewed a month before they expire; one with less time left than this was not."""
RENEW = "see the log of the reconcilers (self-issued) or of cert-manager, or renew your own: docs/how-to/mtls.md"
PLAINTEXT = (
    "its gRPC port is open without TLS: every process that reaches it can read all routes, wake services and keep them "
    "awake"
)


def check_certificates(worlds: Mapping[str, World], now: datetime) -> Examined:
    """Return a finding for each reconciler in plaintext, and for each certificate that was not renewed in time."""
    found: list[Finding] = []
    ends: list[datetime] = []
    for name, world in worlds.items():
        standing = world.get("standing") or {}
        if standing.get("plaintext"):
            found.append(Finding(name, PLAINTEXT, "helm upgrade with mtls.enabled=true: docs/how-to/mtls.md"))
        until = {part: datetime.fromisoformat(text) for part, text in standing.get("certificates", {}).items()}
        ends += until.values()
        found += _late(name, until, now)
    said = f"valid until {min(ends):%Y-%m-%d}" if ends else "none"
    return Examined("certificates", said, tuple(found))


def _late(reconciler: str, until: Mapping[str, datetime], now: datetime) -> Iterator[Finding]:
    for part, end in until.items():
        if end - now < SOON:
            verb = "expired" if end <= now else "expires"
            yield Finding(reconciler, f"the certificate of {part} {verb} at {end:%Y-%m-%d %H:%M} UTC", RENEW)
