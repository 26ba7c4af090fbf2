"""Findings of `zenvoy doctor`: plain values, each with a code for programs and a message for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """The severity of a finding."""

    PROBLEM = "problem"
    """Something does not work, or two programs conflict; the exit code is 1."""
    NOTE = "note"
    """Something to know; nothing is wrong."""


class FindingCode(StrEnum):
    """The kinds of findings; `zenvoy doctor -o json` shows them, and scripts may rely on them."""

    NOT_PERMITTED = "NotPermitted"
    """You lack the permission for this check."""

    DEFINITION_MISSING = "DefinitionMissing"
    DEFINITION_OUTDATED = "DefinitionOutdated"
    CONTROLLER_MISSING = "ControllerMissing"
    CONTROLLER_NOT_READY = "ControllerNotReady"
    CONTROLLER_SILENT = "ControllerSilent"
    """A controller does not return its live data."""
    VERSIONS_DIFFER = "VersionsDiffer"
    HOST_POLICY_INVALID = "HostPolicyInvalid"
    HOST_POLICY_INCOMPLETE = "HostPolicyIncomplete"
    INSTALLED_TWICE = "InstalledTwice"
    """Another installation looks after the same namespaces."""
    NO_LEADER = "NoLeader"
    LEADER_UNKNOWN = "LeaderUnknown"
    """The Lease names a holder that is not a pod of the controller."""
    LEASE_EXPIRED = "LeaseExpired"
    PERMISSION_MISSING = "PermissionMissing"
    """The controller lacks a permission."""

    NO_ENVOY = "NoEnvoy"
    ENVOY_DISCONNECTED = "EnvoyDisconnected"
    CONFIGURATION_REJECTED = "ConfigurationRejected"
    NO_HOLDER = "NoHolder"
    HOLDER_DISCONNECTED = "HolderDisconnected"
    HOLD_MODES_DIFFER = "HoldModesDiffer"
    REDIRECT_RULES_MISSING = "RedirectRulesMissing"
    PROXY_NOT_JOINED = "ProxyNotJoined"
    RECONCILER_NOT_READY = "ReconcilerNotReady"
    SAMPLES_UNKNOWN = "SamplesUnknown"
    REPLICAS_UNKNOWN = "ReplicasUnknown"
    PLAINTEXT = "Plaintext"
    CERTIFICATE_EXPIRES = "CertificateExpires"

    SERVICE_NOT_READY = "ServiceNotReady"
    """The `reason` of the finding is that of the condition Ready."""
    WAKE_STALLED = "WakeStalled"
    """The `reason` of the finding is that of the condition Stalled."""
    WAKE_FAILED = "WakeFailed"
    """The last wake ended without a ready service; the `reason` of the finding is that of the stall."""
    SERVICE_NOT_SEEN = "ServiceNotSeen"
    SPEC_NOT_APPLIED = "SpecNotApplied"
    NOT_CAPTURED = "NotCaptured"
    """Callers of a Service that is to be captured reach its pods; the `reason` is that of the condition Captured."""
    BUSY_CHECK_FAILED = "BusyCheckFailed"
    """A busy check has no valid answer again and again, so its service never sleeps."""

    AUTOSCALER_SCALES_TO_ZERO = "AutoscalerScalesToZero"
    AUTOSCALER_RAISES_REPLICAS = "AutoscalerRaisesReplicas"
    KEDA_RAISES_REPLICAS = "KedaRaisesReplicas"
    KEDA_SCALES_TO_ZERO = "KedaScalesToZero"
    REPLICAS_APPLIED = "ReplicasApplied"
    """Another program applies `spec.replicas`."""
    REPLICAS_CONTROLLED = "ReplicasControlled"
    """The target belongs to another object, whose controller may set the replicas."""
    VOLUMES_DELETED = "VolumesDeleted"
    """Kubernetes deletes the volumes of the target at each sleep."""

    ROUTE_PAST_PROXY = "RoutePastProxy"
    """An Ingress, an HTTPRoute, or a route of another kind leads to the Service itself, so it cannot wake it."""
    SERVICE_PAST_PROXY = "ServicePastProxy"
    """The Service itself has a load balancer or ports of nodes, which lead to the pods."""

    PODS_WHILE_ASLEEP = "PodsWhileAsleep"
    """A Service has pods of another workload than the target, which neither sleep nor get connections."""

    POLICY_BLOCKS_PROXIES = "PolicyBlocksProxies"
    """A NetworkPolicy keeps connections of zenvoy's proxies from the pods of a service."""
    POLICY_BLOCKS_RECONCILERS = "PolicyBlocksReconcilers"
    """A NetworkPolicy keeps busy checks, probes, or dials of zenvoy's reconcilers from the pods of a service."""

    ENVOY_UNUSABLE = "EnvoyUnusable"
    FILE_INVALID = "FileInvalid"
    FILE_REJECTED = "FileRejected"
    """A running `zenvoy up` does not apply the services file, or a part of it."""
    ADDRESS_IN_USE = "AddressInUse"
    NOT_RUNNING = "NotRunning"
    RECORDS_NOT_WRITTEN = "RecordsNotWritten"
    RECORDS_SET_ASIDE = "RecordsSetAside"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem or a note, with its remedy."""

    code: FindingCode
    place: str
    """The object, file or process that it is about."""
    message: str
    remedy: str
    severity: Severity = Severity.PROBLEM
    reason: str | None = None
    """The reason of the condition that the finding repeats, if it does."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check; without findings, everything is in order."""

    check: str
    summary: str
    findings: tuple[Finding, ...] = ()

    @property
    def problems(self) -> int:
        return sum(finding.severity is Severity.PROBLEM for finding in self.findings)


def as_data(results: list[CheckResult]) -> dict[str, Any]:
    """Return the content of `-o json`."""
    return {
        "problems": sum(one.problems for one in results),
        "checks": [{"check": one.check, "problems": one.problems, "summary": one.summary} for one in results],
        "findings": [
            {"check": one.check, **asdict(finding), "code": finding.code.value, "severity": finding.severity.value}
            for one in results
            for finding in one.findings
        ],
    }
