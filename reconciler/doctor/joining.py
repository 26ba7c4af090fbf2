"""Proxy pods whose Envoy or holder no reconciler knows: a certificate, a NetworkPolicy, an image. Pure.

An Envoy's node id and a holder's id are their pod's name. One that went away a moment ago is `connected`'s to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from reconciler.cluster_client.controllers import Pod
from reconciler.core.wording import counted
from reconciler.doctor.connected import World
from reconciler.doctor.finding import Examined, Finding

DESCRIBE = "kubectl describe pod {name} -n {system}"
LOOK = (
    "kubectl logs {name} -n {system} --all-containers: can it reach a reconciler at its gRPC port (NetworkPolicy), "
    "and are its certificates of that CA (docs/troubleshooting.md, A proxy pod is not ready)?"
)


def examined(system: str, pods: Iterable[Pod], worlds: Mapping[str, World]) -> Examined:
    """`worlds` are of all reconcilers: who is missing at one may be at another."""
    joined = {
        "Envoy": {envoy["id"] for world in worlds.values() for envoy in world["envoys"]},
        "holder": {holder["id"] for world in worlds.values() for holder in world["holders"]},
    }
    listed = list(pods)
    found = [finding for pod in listed for finding in _of(system, pod, joined)]
    return Examined("proxies", counted(len(listed), "pod"), tuple(found))


def _of(system: str, pod: Pod, joined: Mapping[str, set[str]]) -> Iterator[Finding]:
    name = pod.metadata["name"]
    missing = [part for part, names in joined.items() if name not in names]
    if not missing:
        return
    who = f"its {missing[0]} is not" if len(missing) == 1 else "neither its Envoy nor its holder is"
    remedy = LOOK if pod.status.get("phase") == "Running" else DESCRIBE
    yield Finding(
        f"pod {system}/{name}", f"{who} known to a reconciler: {pod.waits_for}", remedy.format(name=name, system=system)
    )
