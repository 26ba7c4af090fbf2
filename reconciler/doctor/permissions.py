"""A check of the controller's permissions, by one SubjectAccessReview for each.

The permissions are those that `deploy/chart` grants; a test compares the two.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.cluster_client.cluster import LEASE, ClusterClient
from reconciler.cluster_client.controllers import InstalledPod
from reconciler.doctor.findings import CheckResult, Finding, FindingCode
from reconciler.doctor.installation import latest_arguments, watched_namespaces
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind
from reconciler.kubernetes.config.resolve import target_of
from reconciler.kubernetes.types.scaled_service import GROUP, PLURAL, ScaledService

REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
CONCURRENT_REVIEWS = 10
WATCH = ("list", "watch")
GRANT = "helm upgrade zenvoy deploy/chart, or grant it by hand: kubectl create clusterrole and clusterrolebinding"
GRANT_TARGET = "name it in the chart's value `scaleTargets`"


@dataclass(frozen=True, slots=True)
class Permission:
    """A verb on a resource, in the namespaces that the controller watches, or in its own."""

    verb: str
    group: str
    resource: str
    """The plural, with the subresource if any: `deployments/scale`."""
    own: bool = False
    name: str = ""
    """The name of the only object; empty: all."""
    remedy: str = GRANT

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


def _permissions(verbs: Iterable[str], group: str, *resources: str, **more: Any) -> Iterator[Permission]:
    return (Permission(verb, group, resource, **more) for resource in resources for verb in verbs)


PERMISSIONS = (
    *_permissions(("get", *WATCH, "create", "patch", "delete"), GROUP, PLURAL),
    *_permissions(("patch",), GROUP, f"{PLURAL}/status"),
    *_permissions(WATCH, "", "services", "pods", "events"),
    *_permissions(WATCH, "discovery.k8s.io", "endpointslices"),
    *_permissions(("create", "patch"), "events.k8s.io", "events"),
    *_permissions(("create",), "coordination.k8s.io", "leases", own=True),
    *_permissions(("get", "update", "patch"), "coordination.k8s.io", "leases", own=True, name=LEASE),
    *_permissions(WATCH, "discovery.k8s.io", "endpointslices", own=True),
)
CAPTURE_PERMISSIONS = (
    *_permissions(("create", "delete", "patch"), "", "services"),
    *_permissions(("create", "delete", "patch"), "discovery.k8s.io", "endpointslices"),
)
"""Those of an installation that captures Services."""
SECRET_VERBS = (*WATCH, "patch")
"""The verbs on each Secret that contains certificates that the controller issues."""


async def check_permissions(
    cluster: ClusterClient, pods: list[InstalledPod], items: list[ScaledService]
) -> CheckResult:
    """Find the permissions that the controller lacks. Raises `ApiError`, also if you may not create reviews."""
    accounts = sorted({pod.spec.service_account_name for pod in pods})
    namespaces = watched_namespaces(pods)
    if not accounts:
        return CheckResult("permissions", "there is no controller")
    secrets = [
        right
        for name in latest_arguments(pods, "--tls-ca-secret=", "--tls-proxy-secret=")
        for right in _permissions(SECRET_VERBS, "", "secrets", own=True, name=name)
    ]
    everywhere = () if namespaces else _permissions(WATCH, "", "namespaces")
    captures = CAPTURE_PERMISSIONS if any(latest_arguments(pods, "--capture-ports=")) else ()
    wanted = [*PERMISSIONS, *captures, *secrets, *everywhere, *await _of_targets(cluster, items)]
    slots, found = asyncio.Semaphore(CONCURRENT_REVIEWS), []

    async def review(account: str, right: Permission, namespace: str | None) -> None:
        async with slots:
            if reason := await _denied(cluster, account, right, namespace):
                message = (
                    f"it may not {right} {f'in namespace {namespace}' if namespace else 'in all namespaces'}: {reason}"
                )
                place = f"ServiceAccount {cluster.options.system}/{account}"
                found.append(Finding(FindingCode.PERMISSION_MISSING, place, message, right.remedy))

    reviews = [
        (account, right, namespace)
        for account in accounts
        for right in wanted
        for namespace in ([cluster.options.system] if right.own else namespaces or (None,))
    ]
    first, *others = reviews
    await review(*first)  # a user who may not create reviews gets one error
    await asyncio.gather(*(review(*other) for other in others))
    summary = f"{len(wanted)} permissions of {', '.join(f'{cluster.options.system}/{account}' for account in accounts)}"
    return CheckResult("permissions", summary, tuple(sorted(found, key=lambda finding: finding.message)))


async def _of_targets(cluster: ClusterClient, items: list[ScaledService]) -> list[Permission]:
    """Return the permissions on the kinds of scale targets."""
    discovery, rights = Discovery(cluster.api), []
    for api_version, kind in sorted({(target_of(item).api_version, target_of(item).kind) for item in items}):
        try:
            found = await discovery.find(api_version, kind)
        except (NoSuchKind, msgspec.DecodeError):
            continue  # the condition of the ScaledService reports it
        group = api_version.rpartition("/")[0]
        rights += [
            *_permissions(WATCH, group, found.plural, remedy=GRANT_TARGET),
            *_permissions(("get", "patch"), group, f"{found.plural}/scale", remedy=GRANT_TARGET),
        ]
    return rights


async def _denied(cluster: ClusterClient, account: str, right: Permission, namespace: str | None) -> str | None:
    """Return the reason for which the permission is denied, or None if it is granted."""
    resource, _, subresource = right.resource.partition("/")
    system = cluster.options.system
    review = {
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
    status = json.loads(await cluster.api.call("POST", REVIEWS, review))["status"]
    return None if status.get("allowed") else status.get("reason") or "no rule allows it"
