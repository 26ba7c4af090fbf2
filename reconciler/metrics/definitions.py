"""Definitions of all metrics of the reconciler. `docs/metrics.md` is generated from them; nothing else is exported.

Names contain units, by https://prometheus.io/docs/practices/naming/; a counter is defined without its `_total`. Labels
are bounded: unbounded values, such as addresses of peers, belong in logs.
Counterparts: `services.py` and `metrics.py`, which render the two halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

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
    labels: tuple[str, ...]

    @property
    def sample_name(self) -> str:
        """The name for queries; for a histogram, without `_bucket`, `_sum` and `_count`."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _family(kind: Kind, name: str, help: str, labels: str = "") -> Family:
    return Family(name, kind, help, tuple(labels.split()))


def _of_service(kind: Kind, name: str, help: str, labels: str = "") -> Family:
    return _family(kind, f"zenvoy_service_{name}", help, f"service {labels}")


_gauge, _counter, _histogram = partial(_family, "gauge"), partial(_family, "counter"), partial(_family, "histogram")
_service_gauge, _service_counter = partial(_of_service, "gauge"), partial(_of_service, "counter")

STATE = _service_gauge("state", "1 for the state that the service is in, 0 for the others.", "state")
FIGURES = (
    _service_gauge("state_entered_timestamp_seconds", "Time of the last change of the state; it survives a restart."),
    _service_gauge("stalled", "1 while the wake is stalled for a known reason."),
    _service_gauge("paused", "1 while a user has paused the service, so that it stays awake."),
    _service_gauge("replicas", "Replicas that exist or that their owner specifies; no series while unknown."),
    _service_gauge("held", "Held connections; no series while a holder is missing."),
    _service_gauge("relayed", "Connections that a holder relays; no series while a holder is missing."),
    _service_counter("released", "Held connections that were released to the service."),
    _service_counter("refused", "Connections that holders refused; zenvoy_service_refusals_total has the reasons."),
    _service_counter("gone", "Held connections whose client gave up."),
    _service_counter("requests", "Requests that Envoy counted; connections for protocols without requests."),
    _service_gauge("wake_timeout_seconds", "The service's own wakeTimeout."),
    _service_gauge("idle_after_seconds", "The service's own idleAfter."),
    _service_gauge("hold_timeout_seconds", "The service's own holdTimeout."),
    _service_gauge("deadline_timestamp_seconds", "Time of the state's deadline; no series without one."),
    _service_counter(
        "slept_replica_seconds",
        "Replica-seconds that were not run because the service slept: time multiplied by the last number of replicas.",
    ),
    _service_counter(
        "slept_cpu_core_seconds",
        "Core-seconds that were not requested because of sleep; no series if the pods' requests are unknown.",
    ),
    _service_counter(
        "slept_memory_byte_seconds",
        "Byte-seconds of memory that were not requested because of sleep; no series if the pods' requests are unknown.",
    ),
    _service_counter("waited_seconds", "Sum of the seconds that held connections have waited."),
    _service_gauge(
        "last_wake_early",
        "1 if zenvoy's probes ended the last wake before Kubernetes called the pod ready, otherwise 0.",
    ),
    _service_gauge(
        "last_wake_saved_seconds",
        "Seconds by which zenvoy's probes preceded Kubernetes' readiness in the last wake; no series if they did not.",
    ),
)
STALLED_INFO = _service_gauge(
    "stalled_info",
    "1 for the reason why the wake is stalled; present while zenvoy_service_stalled is 1; survives a restart.",
    "reason",
)
BUSY_INFO = _service_gauge(
    "busy_info",
    "1 for the reason to stay awake without a client: Busy, BusyUntil, BusyCheckFailed, Bypassed, or BadAnnotation.",
    "reason",
)
TRANSITIONS = _service_counter(
    "transitions",
    "Transitions; from Waking to Waking means stalled. A series begins with its first transition.",
    "from to event",
)
REFUSALS = _service_counter(
    "refusals",
    "Connections that holders refused, by reason: max_held, descriptors, timeout, removed, draining, unassigned.",
    "reason",
)
WAKES = _service_counter(
    "wakes",
    "Wakes that succeeded (woken), stalled, or exceeded wakeTimeout (timed_out); one wake may count in all three. "
    "A service that was awake and lost or replaced its endpoints counts only as stalled or timed_out.",
    "result",
)
LAST_WAKE = _service_gauge(
    "last_wake_duration_seconds", "Duration of the last wake, from the first held connection to its first byte."
)
LAST_WAKE_PART = _service_gauge("last_wake_part_duration_seconds", "Duration of each part of the last wake.", "part")
SERVICE_FAMILIES = (STATE, *FIGURES, STALLED_INFO, BUSY_INFO, TRANSITIONS, REFUSALS, WAKES, LAST_WAKE, LAST_WAKE_PART)
"""Rendered by `services.py`: each may have 10,000 series or more."""

WAKE = _histogram(
    "zenvoy_wake_duration_seconds",
    "Duration of wakes, from the first held connection to its first byte; exemplars name the service.",
)
WAKE_PART = _histogram(
    "zenvoy_wake_part_duration_seconds",
    f"Duration of the parts of wakes, in order: {', '.join(PARTS)}; in a cluster "
    f"{', '.join(CLUSTER_PARTS)}; exemplars name the service.",
    "part",
)
WAKE_REQUESTS = _histogram(
    "zenvoy_wake_served_requests",
    "Requests, or connections, that were served between a wake and the next sleep; exemplars name the service.",
)
WAKE_CONNECTIONS = _histogram(
    "zenvoy_wake_released_connections",
    "Held connections that were released between a wake and the next sleep; exemplars name the service.",
)
LOOP_LAG = _histogram("zenvoy_event_loop_lag_seconds", "Delay of a timer on the event loop that is due each second.")
SAMPLES = _counter("zenvoy_samples", "Samples of Envoys' counters.")
SAMPLES_UNKNOWN = _counter(
    "zenvoy_samples_unknown", "Samples with unknown usage, by cause; each keeps services awake.", "cause"
)
SAMPLE_COMPLETE = _gauge(
    "zenvoy_sample_complete", "1 if usage is known from the latest sample, 0 if unknown; only where zenvoy_leader is 1."
)
SAMPLE_UNKNOWN = _gauge(
    "zenvoy_sample_unknown",
    "1 for the cause of the latest sample's unknown usage, 0 for all others; only where zenvoy_leader is 1.",
    "cause",
)
SAMPLE_TAKEN = _gauge(
    "zenvoy_sample_timestamp_seconds", "Time of the latest sample with an Envoy in it; its age is time() minus this."
)
SAMPLE_COMPLETE_TAKEN = _gauge("zenvoy_sample_complete_timestamp_seconds", "Time of the latest complete sample.")
ENVOYS = _gauge("zenvoy_xds_connected_envoys", "Connected Envoys.")
ENVOY_CONNECTED = _gauge(
    "zenvoy_xds_connected_timestamp_seconds", "Time at which a connected Envoy connected.", "envoy"
)
ACKED = _gauge(
    "zenvoy_xds_acked_version_info",
    "1 for the version that a connected Envoy acknowledged last; not of endpoints: it changes with each wake.",
    "envoy type version",
)
ACKS = _counter("zenvoy_xds_acks", "Acknowledgements of endpoints by a connected Envoy.", "envoy")
NACKS = _counter("zenvoy_xds_nacks", "Configurations that a connected Envoy rejected.", "envoy")
HOLDERS = _gauge("zenvoy_holders_connected", "Connected holders.")
SERVICES = _gauge("zenvoy_services", "Configured services.")
READY = _gauge("zenvoy_ready", "1 when all services are known and Envoys receive their configuration.")
LEADER = _gauge("zenvoy_leader", "1 on the leader, which may put services to sleep; always 1 on one machine.")
API_CALLS = _counter(
    "zenvoy_api_calls", "Completed calls to the API server, and started watches; in a cluster only.", "method code"
)
REFUSED_STREAMS = _counter(
    "zenvoy_streams_refused",
    "Refused streams of Envoys, holders and replicas, by kind (xDS, holder, peer) and gRPC status.",
    "stream code",
)
PLAINTEXT = _gauge(
    "zenvoy_grpc_plaintext",
    "1 while the gRPC port is open without mutual TLS, which is for debugging only; 0 otherwise.",
)
RECORDS_FAILING = _gauge(
    "zenvoy_records_failing",
    "1 while records cannot be written to their file; wakes and sleeps continue. On one machine only.",
)
CERTIFICATE_EXPIRY = _gauge(
    "zenvoy_certificate_expiry_timestamp_seconds",
    "End of a certificate's validity, in seconds since the epoch: ca, reconciler or proxy; in a cluster only.",
    "certificate",
)
BUILD = _gauge("zenvoy_build_info", "Always 1; the labels contain the versions.", "version python")
