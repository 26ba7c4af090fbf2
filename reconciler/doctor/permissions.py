"""Whether the controller may do what it does: the API server is asked, for its service account, right by right.

The rights are those that `deploy/chart` grants; a test compares the two.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from reconciler.cluster_client.cluster import LEASE, Cluster
from reconciler.doctor.findings import Examined, Finding
from reconciler.doctor.installation import Installation
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind
from reconciler.kubernetes.config.resolve import target_of
from reconciler.kubernetes.types.scaled_service import GROUP, PLURAL, ScaledService

REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
AT_ONCE = 10
WATCH = ("list", "watch")
GRANT = "helm upgrade zenvoy deploy/chart, or grant it by hand: kubectl create clusterrole and clusterrolebinding"
GRANT_TARGET = "name it in the chart's value `scaleTargets`"


@dataclass(frozen=True, slots=True)
class Right:
    """To do something with all objects of a resource, where the controller looks; or in its own namespace."""

    verb: str
    group: str
    resource: str
    """With its subresource, as in `deployments/scale`."""
    own: bool = False
    name: str = ""
    """Of the one object that it is about; empty: all."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


def _rights(verbs: Iterable[str], group: str, *resources: str, own: bool = False, name: str = "") -> Iterator[Right]:
    return (Right(verb, group, resource, own, name) for resource in resources for verb in verbs)


RIGHTS = (
    *_rights(("get", *WATCH, "create", "patch", "delete"), GROUP, PLURAL),
    *_rights(("patch",), GROUP, f"{PLURAL}/status"),
    *_rights(WATCH, "", "services", "pods", "events"),
    *_rights(WATCH, "discovery.k8s.io", "endpointslices"),
    *_rights(("create", "patch"), "events.k8s.io", "events"),
    *_rights(("create",), "coordination.k8s.io", "leases", own=True),
    *_rights(("get", "update", "patch"), "coordination.k8s.io", "leases", own=True, name=LEASE),
    *_rights(WATCH, "discovery.k8s.io", "endpointslices", own=True),
)


SECRET_VERBS = (*WATCH, "patch")
"""On each Secret with certificates that the controller issues."""


async def check_permissions(cluster: Cluster, installed: Installation, items: list[ScaledService]) -> Examined:
    """Raises `ApiError`, also when whoever asks may not ask for others."""
    accounts = sorted(installed.accounts)
    if not accounts:
        return Examined("permissions", "no controller to ask for")
    secrets = [
        right for name in installed.secrets for right in _rights(SECRET_VERBS, "", "secrets", own=True, name=name)
    ]
    everywhere = () if installed.namespaces else _rights(WATCH, "", "namespaces")
    wanted = [*RIGHTS, *secrets, *everywhere, *await _of_targets(cluster, items)]
    slots, found = asyncio.Semaphore(AT_ONCE), []

    async def asked(account: str, right: Right, namespace: str | None) -> None:
        async with slots:
            if why := await _denied(cluster, account, right, namespace):
                found.append(_finding(cluster, account, right, namespace, why))

    asks = [
        asked(account, right, namespace)
        for account in accounts
        for right in wanted
        for namespace in ([cluster.where.system] if right.own else installed.namespaces or (None,))
    ]
    first, *others = asks
    try:
        await first  # whoever may not ask is told so once
    except BaseException:
        for other in others:
            other.close()
        raise
    await asyncio.gather(*others)
    said = f"{len(wanted)} rights of {', '.join(f'{cluster.where.system}/{account}' for account in accounts)}"
    return Examined("permissions", said, tuple(sorted(found, key=lambda finding: finding.what)))


async def _of_targets(cluster: Cluster, items: list[ScaledService]) -> list[Right]:
    """Of the kinds that are scaled."""
    discovery, rights = Discovery(cluster.api), []
    for api_version, kind in sorted({(target_of(item).api_version, target_of(item).kind) for item in items}):
        try:
            found = await discovery.find(api_version, kind)
        except (NoSuchKind, msgspec.DecodeError):
            continue  # which is told as the condition of whoever wants it
        group = api_version.rpartition("/")[0]
        rights += [*_rights(WATCH, group, found.plural), *_rights(("get", "patch"), group, f"{found.plural}/scale")]
    return rights


async def _denied(cluster: Cluster, account: str, right: Right, namespace: str | None) -> str | None:
    """Why it is not allowed; None when it is."""
    resource, _, subresource = right.resource.partition("/")
    system = cluster.where.system
    asked = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{system}:{account}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{system}", "system:authenticated"],
            "resourceAttributes": {
                "verb": right.verb,
                "group": right.group,
                "resource": resource,
                "subresource": subresource,
                "name": right.name,
                "namespace": namespace or "",
            },
        },
    }
    status = json.loads(await cluster.api.call("POST", REVIEWS, asked))["status"]
    return None if status.get("allowed") else status.get("reason") or "no rule allows it"


def _finding(cluster: Cluster, account: str, right: Right, namespace: str | None, why: str) -> Finding:
    where = f"ServiceAccount {cluster.where.system}/{account}"
    place = f"in namespace {namespace}" if namespace else "in all namespaces"
    ours = {("", "secrets"), ("", "namespaces"), *((one.group, one.resource) for one in RIGHTS)}
    remedy = GRANT if (right.group, right.resource) in ours else GRANT_TARGET
    return Finding(where, f"it may not {right} {place}: {why}", remedy)
