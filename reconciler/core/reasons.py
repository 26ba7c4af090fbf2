"""Codes and the values that carry them: problems, diagnoses, drain blockers, and causes of unknown usage.

Code compares codes; metrics, conditions and Events publish them. Messages are for people only: nothing parses them.
The set of codes is closed, so an image, a registry, or a program cannot add labels to metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """A stable code; its value is published."""

    # Stalls: a workload does not become ready. docs/troubleshooting.md explains those of a cluster.
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    INVALID_IMAGE_NAME = "InvalidImageName"
    ERR_IMAGE_NEVER_PULL = "ErrImageNeverPull"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    CRASHED = "Crashed"
    OOM_KILLED = "OOMKilled"
    EVICTED = "Evicted"
    CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
    CREATE_CONTAINER_ERROR = "CreateContainerError"
    RUN_CONTAINER_ERROR = "RunContainerError"
    UNSCHEDULABLE = "Unschedulable"
    SCHEDULING_GATED = "SchedulingGated"
    NOT_SCHEDULED = "NotScheduled"
    FAILED_MOUNT = "FailedMount"
    FAILED_ATTACH_VOLUME = "FailedAttachVolume"
    FAILED_MAP_VOLUME = "FailedMapVolume"
    QUOTA_EXCEEDED = "QuotaExceeded"
    FAILED_CREATE = "FailedCreate"
    NO_PODS = "NoPods"
    INITIALIZING = "Initializing"
    CONTAINER_CREATING = "ContainerCreating"
    UNHEALTHY = "Unhealthy"
    NOT_READY = "NotReady"
    NO_ENDPOINT = "NoEndpoint"
    SERVICE_NOT_FOUND = "ServiceNotFound"
    TARGET_NOT_FOUND = "TargetNotFound"
    NO_SUCH_KIND = "NoSuchKind"
    NOT_SCALABLE = "NotScalable"
    FORBIDDEN = "Forbidden"
    SCALE_FAILED = "ScaleFailed"
    API_UNREACHABLE = "ApiUnreachable"
    EXITED = "Exited"
    KILLED = "Killed"
    NOT_STARTED = "NotStarted"
    TIMED_OUT = "TimedOut"
    OTHER = "other"

    # Unknown usage: a sample proves nothing about any service. docs/runbooks/TrafficUnknown.md explains them.
    PROMETHEUS = "prometheus"
    NO_ENVOY = "no_envoy"
    ENVOY_MISSING = "envoy_missing"
    ENVOY_AWAY = "envoy_away"
    ENVOY_NEW = "envoy_new"
    ENVOY_RESTARTED = "envoy_restarted"
    FIRST_SAMPLE = "first_sample"
    SAMPLE_NOT_NEWER = "sample_not_newer"
    REPLICA_MISSING = "replica_missing"
    REPLICAS_UNKNOWN = "replicas_unknown"
    LEADER_NEW = "leader_new"
    NOT_LEADER = "not_leader"

    # Drain blockers: a draining service may not be scaled to zero, or a deleted one may not be removed.
    HOLDER_MISSING = "HolderMissing"
    CONNECTIONS_HELD = "ConnectionsHeld"
    CONNECTIONS_RELAYED = "ConnectionsRelayed"
    ROUTE_NOT_ACKNOWLEDGED = "RouteNotAcknowledged"
    ROUTE_JUST_ACKNOWLEDGED = "RouteJustAcknowledged"
    NO_COMPLETE_SAMPLE = "NoCompleteSample"
    USAGE_UNKNOWN = "UsageUnknown"
    SAMPLE_TOO_OLD = "SampleTooOld"
    IN_FLIGHT = "InFlight"
    NOT_SILENT = "NotSilent"
    DELETION_NOT_APPLIED = "DeletionNotApplied"
    BUSY_CHECK_PENDING = "BusyCheckPending"

    # Work without a connection: a service stays awake although no client uses it.
    BUSY = "Busy"
    BUSY_UNTIL = "BusyUntil"
    BUSY_CHECK_FAILED = "BusyCheckFailed"
    BYPASSED = "Bypassed"

    # Wakes that serve nothing: the idle time grows.
    WAKES_UNSERVED = "WakesUnserved"

    # Problems: a mistake in what a person configured.
    SERVICE_UNUSABLE = "ServiceUnusable"
    PORT_NOT_FOUND = "PortNotFound"
    PORT_AMBIGUOUS = "PortAmbiguous"
    LISTEN_MISSING = "ListenMissing"
    LISTEN_NOT_USED = "ListenNotUsed"
    LISTEN_TAKEN = "ListenTaken"
    LISTEN_RESERVED = "ListenReserved"
    LISTEN_NOT_ALLOWED = "ListenNotAllowed"
    TRUSTED_HOPS_NOT_USED = "TrustedHopsNotUsed"
    HOSTS_NOT_USED = "HostsNotUsed"
    HOST_TAKEN = "HostTaken"
    HOST_NOT_ALLOWED = "HostNotAllowed"
    IDLE_BY_UNKNOWN = "IdleByUnknown"
    WAKE_BY_UNKNOWN = "WakeByUnknown"
    IGNORE_NOT_USED = "IgnoreNotUsed"
    BAD_SPEC = "BadSpec"
    BAD_ANNOTATION = "BadAnnotation"
    BAD_LABEL = "BadLabel"
    BAD_COMMAND = "BadCommand"
    NAME_TAKEN = "NameTaken"
    CAPTURE_DISABLED = "CaptureDisabled"
    CAPTURE_NOT_POSSIBLE = "CaptureNotPossible"
    CAPTURE_TAKEN = "CaptureTaken"
    REFUSED = "Refused"
    REJECTED_BY_ENVOY = "RejectedByEnvoy"


_REASONS = tuple(Reason)
STALL_REASONS = _REASONS[: _REASONS.index(Reason.OTHER) + 1]
"""Codes of a `Diagnosis`."""
UNKNOWN_REASONS = _REASONS[_REASONS.index(Reason.PROMETHEUS) : _REASONS.index(Reason.NOT_LEADER) + 1]
"""Codes of an `Unknown`."""
_STALLS_BY_VALUE = {reason.value: reason for reason in STALL_REASONS}


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in what a person configured."""

    reason: Reason
    field: str
    """Path of the field, annotation, or entry, as in `spec.port`."""
    message: str
    """Description of the mistake."""
    remedy: str
    """An imperative sentence that fixes it."""
    on: str = "ScaledService"
    """Kind of the object with the mistake; only in a cluster."""
    harmless: bool = False
    """True if the mistake changes nothing about the service."""

    def __str__(self) -> str:
        return " ".join(f"{self.field}: {self.message}; {self.remedy}".split())


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The reason why a workload does not become ready."""

    code: Reason
    """One of `STALL_REASONS`."""
    message: str

    @classmethod
    def of(cls, code: str, message: str) -> Diagnosis:
        """Return a diagnosis with an external code, such as a kubelet's; an unlisted code moves to the message."""
        if reason := _STALLS_BY_VALUE.get(code):
            return cls(reason, message)
        return cls(Reason.OTHER, f"{code}: {message}" if code else message)

    @classmethod
    def parse(cls, text: str) -> Diagnosis:
        """Return the diagnosis that `str()` wrote, for records that outlive the process."""
        code, separator, message = text.partition(": ")
        if separator and (reason := _STALLS_BY_VALUE.get(code)):
            return cls(reason, message)
        return cls(Reason.OTHER, text)

    def __str__(self) -> str:
        return self.message if self.code is Reason.OTHER else f"{self.code}: {self.message}"


UNEXPLAINED = Diagnosis(Reason.TIMED_OUT, "not ready, and no reason is reported")
"""The diagnosis of a workload that is not ready, where nothing reports a reason."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The reason why usage cannot be determined: no service is put to sleep."""

    code: Reason
    """One of `UNKNOWN_REASONS`."""
    message: str


@dataclass(frozen=True, slots=True)
class Blocker:
    """The reason why a service may not be scaled to zero or removed yet."""

    code: Reason
    message: str

    def __str__(self) -> str:
        return self.message
