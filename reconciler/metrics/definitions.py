"""Definitions of all metrics of the reconciler. `docs/metrics.md` is generated from them; nothing else is exported.

Names contain units, by https://prometheus.io/docs/practices/naming/; a counter is defined without its `_total`. Labels
are bounded: unbounded values, such as addresses of peers, belong in logs.
Counterparts: `services.py`, and `metrics.py` with `present.py`, which render the two halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reconciler.core.reasons import UNKNOWN_REASONS

Kind = Literal["gauge", "counter", "histogram"]
PARTS = ("signal", "started", "reachable", "firstByte")
"""The parts of a wake on one machine, in order. A wake that zenvoy did not start has `ready` in the middle."""
CLUSTER_PARTS = ("signal", "scale", "scheduled", "running", "ready", "firstByte")
"""The parts of a wake in a cluster, in order."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    series: str = "1"
    """The number of series, for display."""

    @property
    def sample_name(self) -> str:
        """The name for queries; for a histogram, without `_bucket`, `_sum` and `_count`."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _a_service(name: str, kind: Kind, help: str, *labels: str, series: str = "1 a service") -> Family:
    return Family(f"zenvoy_service_{name}", kind, help, ("service", *labels), series)


STATE = _a_service(
    "state", "gauge", "1 for the state that the service is in, 0 for the others.", "state", series="5 a service"
)
FIGURES = (
    _a_service(
        "state_entered_timestamp_seconds", "gauge", "Time of the last change of the state; it survives a restart."
    ),
    _a_service("stalled", "gauge", "1 while the wake is stalled for a known reason."),
    _a_service("paused", "gauge", "1 while a user has paused the service, so that it stays awake."),
    _a_service("replicas", "gauge", "Replicas that exist or that their owner specifies; no series while unknown."),
    _a_service("held", "gauge", "Held connections; no series while a holder is missing."),
    _a_service("relayed", "gauge", "Connections that a holder relays; no series while a holder is missing."),
    _a_service("released", "counter", "Held connections that were released to the service."),
    _a_service(
        "refused", "counter", "Connections that holders refused; zenvoy_service_refusals_total has the reasons."
    ),
    _a_service("gone", "counter", "Held connections whose client gave up."),
    _a_service("requests", "counter", "Requests that Envoy counted; connections for protocols without requests."),
    _a_service("wake_timeout_seconds", "gauge", "The service's own wakeTimeout."),
    _a_service("idle_after_seconds", "gauge", "The service's own idleAfter."),
    _a_service("hold_timeout_seconds", "gauge", "The service's own holdTimeout."),
    _a_service("deadline_timestamp_seconds", "gauge", "Time of the state's deadline; no series without one."),
    _a_service(
        "slept_replica_seconds",
        "counter",
        "Replica-seconds that were not run because the service slept: time multiplied by the last number of replicas.",
    ),
    _a_service(
        "slept_cpu_core_seconds",
        "counter",
        "Core-seconds that were not requested because of sleep; no series if the pods' requests are unknown.",
    ),
    _a_service(
        "slept_memory_byte_seconds",
        "counter",
        "Byte-seconds of memory that were not requested because of sleep; no series if the pods' requests are unknown.",
    ),
    _a_service("waited_seconds", "counter", "Sum of the seconds that held connections have waited."),
    _a_service(
        "last_wake_early",
        "gauge",
        "1 if zenvoy's probes ended the last wake before Kubernetes called the pod ready, otherwise 0.",
        series="1 a service that was woken",
    ),
    _a_service(
        "last_wake_saved_seconds",
        "gauge",
        "Seconds by which zenvoy's probes preceded Kubernetes' readiness in the last wake; no series if they did not.",
        series="1 a service whose last wake ended early",
    ),
)
STALLED_INFO = _a_service(
    "stalled_info",
    "gauge",
    "1 for the reason why the wake is stalled; present while zenvoy_service_stalled is 1; survives a restart.",
    "reason",
    series="1 a service that is stalled",
)
BUSY_INFO = _a_service(
    "busy_info",
    "gauge",
    "1 for the reason to stay awake without a client: Busy, BusyUntil, BusyCheckFailed, Bypassed, or BadAnnotation.",
    "reason",
    series="1 a service that is busy",
)
TRANSITIONS = _a_service(
    "transitions",
    "counter",
    "Transitions; from Waking to Waking means stalled. A series begins with its first transition.",
    *("from", "to", "event"),
    series="up to 29 a service",
)
REFUSALS = _a_service(
    "refusals",
    "counter",
    "Connections that holders refused, by reason: max_held, descriptors, timeout, refused, draining, unknown.",
    "reason",
    series="1 a reason and service, from its first on",
)
WAKES = _a_service(
    "wakes",
    "counter",
    "Wakes that succeeded (woken), stalled, or exceeded wakeTimeout (timed_out); one wake may count in all three. "
    "A service that was awake and lost or replaced its endpoints counts only as stalled or timed_out.",
    "result",
    series="3 a service, from its first wake on",
)
LAST_WAKE = _a_service(
    "last_wake_duration_seconds",
    "gauge",
    "Duration of the last wake, from the first held connection to its first byte.",
    series="1 a service, from its first wake on",
)
LAST_WAKE_PART = _a_service(
    "last_wake_part_duration_seconds",
    "gauge",
    "Duration of each part of the last wake.",
    "part",
    series=f"up to {max(len(PARTS), len(CLUSTER_PARTS))} a service, from its first wake on",
)
SERVICE_FAMILIES = (STATE, *FIGURES, STALLED_INFO, BUSY_INFO, TRANSITIONS, REFUSALS, WAKES, LAST_WAKE, LAST_WAKE_PART)
"""Rendered by `services.py`: each may have 10,000 series or more."""

WAKE = Family(
    "zenvoy_wake_duration_seconds",
    "histogram",
    "Duration of wakes, from the first held connection to its first byte; exemplars name the service.",
    series="18",
)
WAKE_PART = Family(
    "zenvoy_wake_part_duration_seconds",
    "histogram",
    f"Duration of the parts of wakes, in order: {', '.join(PARTS)}; in a cluster "
    f"{', '.join(CLUSTER_PARTS)}; exemplars name the service.",
    ("part",),
    series="18 a part",
)
WAKE_REQUESTS = Family(
    "zenvoy_wake_served_requests",
    "histogram",
    "Requests, or connections, that were served between a wake and the next sleep; exemplars name the service.",
    series="11",
)
WAKE_CONNECTIONS = Family(
    "zenvoy_wake_released_connections",
    "histogram",
    "Held connections that were released between a wake and the next sleep; exemplars name the service.",
    series="11",
)
LOOP_LAG = Family(
    "zenvoy_event_loop_lag_seconds",
    "histogram",
    "Delay of a timer on the event loop that is due each second.",
    series="12",
)
SAMPLES = Family("zenvoy_samples", "counter", "Samples of Envoys' counters.")
SAMPLES_UNKNOWN = Family(
    "zenvoy_samples_unknown",
    "counter",
    "Samples with unknown usage, by cause; each keeps services awake.",
    ("cause",),
    series=str(len(UNKNOWN_REASONS)),
)
SAMPLE_UNKNOWN = Family(
    "zenvoy_sample_unknown",
    "gauge",
    "1 for the cause of the latest sample's unknown usage, 0 for all others; only where zenvoy_leader is 1.",
    ("cause",),
    series=str(len(UNKNOWN_REASONS)),
)
SAMPLE_COMPLETE = Family(
    "zenvoy_sample_complete",
    "gauge",
    "1 if usage is known from the latest sample, 0 if unknown; only where zenvoy_leader is 1.",
)
SAMPLE_TAKEN = Family(
    "zenvoy_sample_timestamp_seconds",
    "gauge",
    "Time of the latest sample with an Envoy in it; its age is time() minus this.",
)
SAMPLE_COMPLETE_TAKEN = Family(
    "zenvoy_sample_complete_timestamp_seconds", "gauge", "Time of the latest complete sample."
)
ENVOYS = Family("zenvoy_xds_connected_envoys", "gauge", "Connected Envoys.")
ENVOY_CONNECTED = Family(
    "zenvoy_xds_connected_timestamp_seconds",
    "gauge",
    "Time at which a connected Envoy connected.",
    ("envoy",),
    "1 an Envoy",
)
ACKED = Family(
    "zenvoy_xds_acked_version_info",
    "gauge",
    "1 for the version that a connected Envoy acknowledged last; not of endpoints: it changes with each wake.",
    ("envoy", "type", "version"),
    "3 an Envoy",
)
ACKS = Family(
    "zenvoy_xds_acks", "counter", "Acknowledgements of endpoints by a connected Envoy.", ("envoy",), "1 an Envoy"
)
NACKS = Family(
    "zenvoy_xds_nacks", "counter", "Configurations that a connected Envoy rejected.", ("envoy",), "1 an Envoy"
)
HOLDERS = Family("zenvoy_holders_connected", "gauge", "Connected holders.")
SERVICES = Family("zenvoy_services", "gauge", "Configured services.")
READY = Family("zenvoy_ready", "gauge", "1 when all services are known and Envoys receive their configuration.")
LEADER = Family("zenvoy_leader", "gauge", "1 on the leader, which may put services to sleep; always 1 on one machine.")
API_CALLS = Family(
    "zenvoy_api_calls",
    "counter",
    "Completed calls to the API server, and started watches; in a cluster only.",
    ("method", "code"),
    "1 a method and code",
)
REFUSED_STREAMS = Family(
    "zenvoy_streams_refused",
    "counter",
    "Refused streams of Envoys, holders and replicas, by kind (xDS, holder, peer) and gRPC status.",
    ("stream", "code"),
    "1 a kind and status",
)
PLAINTEXT = Family(
    "zenvoy_grpc_plaintext",
    "gauge",
    "1 while the gRPC port is open without mutual TLS, which is for debugging only; 0 otherwise.",
)
CERTIFICATE_EXPIRY = Family(
    "zenvoy_certificate_expiry_timestamp_seconds",
    "gauge",
    "End of a certificate's validity, in seconds since the epoch: ca, reconciler or proxy; in a cluster only.",
    ("certificate",),
    series="1 a certificate",
)
RECORDS_FAILING = Family(
    "zenvoy_records_failing",
    "gauge",
    "1 while records cannot be written to their file; wakes and sleeps continue. On one machine only.",
)
BUILD = Family("zenvoy_build_info", "gauge", "Always 1; the labels contain the versions.", ("version", "python"))

HISTOGRAMS = (WAKE, WAKE_PART, WAKE_REQUESTS, WAKE_CONNECTIONS, LOOP_LAG)
CONTROL_FAMILIES = (
    *HISTOGRAMS,
    *(SAMPLES, SAMPLES_UNKNOWN, SAMPLE_COMPLETE, SAMPLE_UNKNOWN, SAMPLE_TAKEN, SAMPLE_COMPLETE_TAKEN),
    *(ENVOYS, ENVOY_CONNECTED, ACKED, ACKS, NACKS, HOLDERS, SERVICES, READY, LEADER, API_CALLS, REFUSED_STREAMS),
    *(PLAINTEXT, RECORDS_FAILING, CERTIFICATE_EXPIRY, BUILD),
)
"""Rendered by prometheus-client."""
