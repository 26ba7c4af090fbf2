"""A check for NetworkPolicies that keep zenvoy's proxies or reconcilers from the pods of a ScaledService.

A sleeping service has no pods, so their labels and ports are those of the target's template. A target without a
template, or one that you may not read, leaves the labels of the Service's selector.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.cluster_client.controllers import InstalledPod, controller_pods, proxy_pods
from reconciler.core.reasons import Problem
from reconciler.core.text import join_words, pluralize
from reconciler.doctor.conflicts import read_targets
from reconciler.doctor.findings import CheckResult, Finding, FindingCode, Severity
from reconciler.kubernetes.config.resolve import select_port, service_of, target_of
from reconciler.kubernetes.config.service_config import Readiness
from reconciler.kubernetes.types.builtin import Pod, Probe, Service
from reconciler.kubernetes.types.network_policy import ClientPod, NetworkPolicy, ServerPod, admits, restricting
from reconciler.kubernetes.types.objects import ObjectMeta, Struct, decoder, path
from reconciler.kubernetes.types.scaled_service import ScaledService

PAGE = "docs/how-to/front-ends-and-networks.md#networkpolicies"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""A label that Kubernetes sets on every namespace."""
IDENTITY_LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/component")
CLIENTS_REFUSED = "clients wait until holdTimeout, and are then refused"
NEVER_SLEEPS = "zenvoy gets no answer to its busy check, so the service never sleeps"
WAKES_LATER = "zenvoy cannot prove that a pod is reachable or run its probes, so a wake waits for Kubernetes' readiness"


class TemplateSpec(Struct, frozen=True):
    """`spec` of a scale target that has pods."""

    template: Pod = Pod()


class TemplatedTarget(Struct, frozen=True):
    """A scale target with the template of its pods, if it has one."""

    metadata: ObjectMeta = ObjectMeta()
    spec: TemplateSpec = TemplateSpec()


@dataclass(frozen=True, slots=True)
class Destination:
    """The pods of a ScaledService, and the ports that zenvoy connects to."""

    service: str
    pods: ServerPod
    port: int | str
    """The port of all connections."""
    busy: int | str | None = None
    """The port of the busy check, if there is one."""
    probes: frozenset[int | str] = frozenset()
    """The ports of the probes that zenvoy runs."""


async def check_network_policies(cluster: ClusterClient, items: list[ScaledService]) -> CheckResult:
    """Find the policies that keep zenvoy from the pods of a service. Raises `ApiError`."""
    where = path("networking.k8s.io/v1", "networkpolicies", cluster.namespace)
    policies: list[NetworkPolicy] = await cluster.list_objects(where, decoder(NetworkPolicy))
    found: tuple[Finding, ...] = ()
    concerned = {policy.metadata.namespace for policy in policies}
    near = [item for item in items if item.metadata.namespace in concerned]
    pods = [await proxy_pods(cluster), await controller_pods(cluster)] if near else []
    if any(pods):
        destinations = await _read_destinations(cluster, near)
        namespace = json.loads(await cluster.api.get(path("v1", "namespaces", name=cluster.options.system)))
        labels = namespace["metadata"].get("labels", {})
        proxies, reconcilers = ([_client(cluster.options.system, labels, pod) for pod in kind] for kind in pods)
        found = tuple(find_unadmitted(destinations, policies, proxies, reconcilers))
    return CheckResult("network policies", f"{len(policies)} in {pluralize(len(concerned), 'namespace')}", found)


def find_unadmitted(
    destinations: Iterable[Destination],
    policies: Sequence[NetworkPolicy],
    proxies: Sequence[ClientPod],
    reconcilers: Sequence[ClientPod],
) -> Iterator[Finding]:
    """Yield a finding for each service that proxies, and each that reconcilers, cannot connect to."""
    for one in destinations:
        if not (restrict := restricting(policies, one.pods)):
            continue
        if kept := [client for client in proxies if not admits(restrict, client, one.pods, one.port)]:
            code = FindingCode.POLICY_BLOCKS_PROXIES
            yield _finding(code, one, restrict, kept[0], {one.port}, CLIENTS_REFUSED, Severity.PROBLEM)
        wanted = {one.port, *one.probes, *(() if one.busy is None else (one.busy,))}
        for client in reconcilers:
            if closed := {port for port in wanted if not admits(restrict, client, one.pods, port)}:
                code, is_asked = FindingCode.POLICY_BLOCKS_RECONCILERS, one.busy in closed
                severity = Severity.PROBLEM if is_asked else Severity.NOTE
                effect = NEVER_SLEEPS if is_asked else WAKES_LATER
                yield _finding(code, one, restrict, client, closed, effect, severity)
                break


def destination(item: ScaledService, service: Service, template: Pod | None) -> Destination | None:
    """Return the pods of a ScaledService; None if no policy applies to them, or its condition names the problem."""
    port = select_port(service, item.spec.port, "spec.port")
    if isinstance(port, Problem) or not service.pod_selector or (template and template.spec.host_network):
        return None
    labels, ports, probes = dict(service.pod_selector), dict[str, int](), list[Probe]()
    if template:
        labels |= template.metadata.labels
        for container in (*template.spec.init_containers, *template.spec.containers):
            ports |= {one.name: one.container_port for one in container.ports if one.name}
            probes += filter(None, (container.startup_probe, container.readiness_probe))
    number = _number(port.target_port or port.port, ports)
    busy = None if item.spec.busy is None else item.spec.busy.port or number
    probed = {_number(one, ports) for probe in probes for one in _probe_ports(probe)}
    run = frozenset(probed) if item.spec.readiness != Readiness.KUBERNETES else frozenset[int | str]()
    return Destination(item.metadata.key, ServerPod(item.metadata.namespace, labels, ports), number, busy, run)


def _number(port: int | str, named: Mapping[str, int]) -> int | str:
    """Return the number of a port if its name is known, and otherwise the port itself."""
    return named.get(port, port) if isinstance(port, str) else port


def _probe_ports(probe: Probe) -> Iterator[int | str]:
    """Yield the port of the pod itself that a probe connects to."""
    if probe.http_get and not probe.http_get.host:
        yield probe.http_get.port
    if probe.tcp_socket and not probe.tcp_socket.host:
        yield probe.tcp_socket.port
    if probe.grpc:
        yield probe.grpc.port


def _finding(
    code: FindingCode,
    one: Destination,
    policies: list[NetworkPolicy],
    client: ClientPod,
    ports: set[int | str],
    effect: str,
    severity: Severity,
) -> Finding:
    who = "proxies" if code is FindingCode.POLICY_BLOCKS_PROXIES else "reconcilers"
    numbers = [str(port) for port in sorted(ports, key=str)]
    where = f"{'port' if len(numbers) == 1 else 'ports'} {join_words(numbers, 'and')}"
    subject = "it does" if len(policies) == 1 else "they do"
    message = f"{subject} not admit zenvoy's {who} to {where} of the pods of {one.service}: {effect}"
    labels = {name: client.labels[name] for name in IDENTITY_LABELS if name in client.labels}
    peer = f"namespaceSelector: {_match({NAMESPACE_LABEL: client.namespace})}, podSelector: {_match(labels)}"
    admitted = ", ".join(f"{{port: {number}}}" for number in numbers)
    remedy = f"add to spec.ingress: - {{from: [{{{peer}}}], ports: [{admitted}]}} ({PAGE})"
    names = ", ".join(policy.metadata.key for policy in policies)
    return Finding(
        code, f"{'NetworkPolicy' if len(policies) == 1 else 'NetworkPolicies'} {names}", message, remedy, severity
    )


def _match(labels: Mapping[str, str]) -> str:
    return f"{{matchLabels: {{{', '.join(f'{name}: {value}' for name, value in labels.items())}}}}}"


def _client(namespace: str, namespace_labels: Mapping[str, str], pod: InstalledPod) -> ClientPod:
    addresses = tuple(one["ip"] for one in pod.status.get("podIPs", ()) if one.get("ip"))
    return ClientPod(namespace, pod.metadata.get("labels", {}), namespace_labels, addresses)


async def _read_destinations(cluster: ClusterClient, items: list[ScaledService]) -> list[Destination]:
    listed: list[Service] = await cluster.list_objects(path("v1", "services", cluster.namespace), decoder(Service))
    services = {one.metadata.key: one for one in listed}
    targets, _ = await read_targets(cluster, items, TemplatedTarget)
    found = []
    for item in items:
        service, target = services.get(service_of(item)), targets.get(target_of(item))
        if service and (one := destination(item, service, target.spec.template if target else None)):
            found.append(one)
    return found
