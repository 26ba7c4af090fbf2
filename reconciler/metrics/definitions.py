"""Every metric of the reconciler, in one table: `docs/metrics.md` is generated from it, and nothing else is exported.

Rule: names are the design's words, with units, by https://prometheus.io/docs/practices/naming/; a counter's name goes
without its `_total`. Labels are bounded: what is unbounded (a reason, a peer) is for logs, not for labels.
Counterparts: `services.py` and `registry.py`, which fill the two halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reconciler.core.reasons import UNKNOWN_REASONS

Kind = Literal["gauge", "counter", "histogram"]
PARTS = ("signal", "started", "reachable", "firstByte")
"""Of a wake on one machine, as they follow one another. One that somebody else began has `ready` in the middle."""
CLUSTER_PARTS = ("signal", "scale", "scheduled", "running", "ready", "firstByte")
"""Of a wake in a cluster."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    series: str = "1"
    """How many series there are, for people."""

    @property
    def sample_name(self) -> str:
        """The name that a query needs; a histogram's is without `_bucket`, `_sum` and `_count`."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _a_service(name: str, kind: Kind, help: str, *labels: str, series: str = "1 a service") -> Family:
    return Family(f"zenvoy_service_{name}", kind, help, ("service", *labels), series)


STATE = _a_service(
    "state", "gauge", "1 for the state that the service is in, 0 for the others.", "state", series="5 a service"
)
FIGURES = (
    _a_service("state_entered_timestamp_seconds", "gauge", "When the state was entered; it survives a restart."),
    _a_service("stalled", "gauge", "1 while something is known to keep the wake from getting on."),
    _a_service("paused", "gauge", "1 while the service is not put to sleep because a person said so."),
    _a_service("replicas", "gauge", "Replicas that exist or are wanted by their owner; no series while not known."),
    _a_service("held", "gauge", "Connections that wait; no series while a holder is missing."),
    _a_service("relayed", "gauge", "Connections that run through a holder; no series while a holder is missing."),
    _a_service("released", "counter", "Held connections that were connected to the service."),
    _a_service("refused", "counter", "Connections that holders refused; zenvoy_service_refusals_total says why."),
    _a_service("gone", "counter", "Held connections whose client gave up."),
    _a_service("requests", "counter", "Requests by Envoy's count; connections where it knows no requests."),
    _a_service("wake_timeout_seconds", "gauge", "The service's own wakeTimeout."),
    _a_service("idle_after_seconds", "gauge", "The service's own idleAfter."),
    _a_service("hold_timeout_seconds", "gauge", "The service's own holdTimeout."),
    _a_service("deadline_timestamp_seconds", "gauge", "When the state's deadline passes; no series without one."),
    _a_service(
        "slept_replica_seconds",
        "counter",
        "Replica-seconds not run because the service slept: time times last replicas.",
    ),
    _a_service(
        "slept_cpu_core_seconds",
        "counter",
        "The same in CPU cores, by the requests of the replicas' pods; no series where they are not known.",
    ),
    _a_service(
        "slept_memory_byte_seconds",
        "counter",
        "The same in bytes of memory, by the requests of the replicas' pods; no series where they are not known.",
    ),
    _a_service("waited_seconds", "counter", "Seconds that held connections have waited, all of them added up."),
)
STALLED_INFO = _a_service(
    "stalled_info",
    "gauge",
    "1 for why the wake does not get on, in one word; there while zenvoy_service_stalled is 1, and survives a restart.",
    "why",
    series="1 a service that is stalled",
)
TRANSITIONS = _a_service(
    "transitions",
    "counter",
    "Changes of the state; from Waking to Waking: it stalled. A series begins with its first transition.",
    *("from", "to", "event"),
    series="up to 27 a service",
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
    "Wakes that ended awake (woken), that stalled, and that outlasted wakeTimeout (timed_out); one may be all three. "
    "What was awake and lost its endpoints, or has them renewed, does not wake: it counts where it stalls or is late.",
    "result",
    series="3 a service, from its first wake on",
)
LAST_WAKE = _a_service(
    "last_wake_duration_seconds",
    "gauge",
    "How long the last wake took, from the first held connection to its first byte.",
    series="1 a service, from its first wake on",
)
LAST_WAKE_PART = _a_service(
    "last_wake_part_duration_seconds",
    "gauge",
    "How long each part of the last wake took.",
    "part",
    series=f"up to {max(len(PARTS), len(CLUSTER_PARTS))} a service, from its first wake on",
)
SERVICE_FAMILIES = (STATE, *FIGURES, STALLED_INFO, TRANSITIONS, REFUSALS, WAKES, LAST_WAKE, LAST_WAKE_PART)
"""Rendered by us: there may be ten thousand of each."""

WAKE = Family(
    "zenvoy_wake_duration_seconds",
    "histogram",
    "How long wakes took, from the first held connection to its first byte; exemplars name the service.",
    series="18",
)
WAKE_PART = Family(
    "zenvoy_wake_part_duration_seconds",
    "histogram",
    f"How long parts of wakes took, as they follow one another: {', '.join(PARTS)}; in a cluster "
    f"{', '.join(CLUSTER_PARTS)}; exemplars name the service.",
    ("part",),
    series="18 a part",
)
WAKE_REQUESTS = Family(
    "zenvoy_wake_served_requests",
    "histogram",
    "Requests, or connections, that a wake served until the service slept again; exemplars name the service.",
    series="11",
)
WAKE_CONNECTIONS = Family(
    "zenvoy_wake_released_connections",
    "histogram",
    "Held connections that were connected from one wake to the next sleep; exemplars name the service.",
    series="11",
)
LOOP_LAG = Family(
    "zenvoy_event_loop_lag_seconds",
    "histogram",
    "How late the event loop came to a timer that is due each second.",
    series="12",
)
SAMPLES = Family("zenvoy_samples", "counter", "Samples of Envoys' counters.")
SAMPLES_UNKNOWN = Family(
    "zenvoy_samples_unknown",
    "counter",
    "Samples that say nothing about any service, by cause; each keeps services awake.",
    ("cause",),
    series=str(len(UNKNOWN_REASONS)),
)
SAMPLE_UNKNOWN = Family(
    "zenvoy_sample_unknown",
    "gauge",
    "1 for the cause for which the latest sample says nothing, 0 for all others; where zenvoy_leader is 1.",
    ("cause",),
    series=str(len(UNKNOWN_REASONS)),
)
SAMPLE_COMPLETE = Family(
    "zenvoy_sample_complete", "gauge", "1 when the latest sample says something, 0 when not; where zenvoy_leader is 1."
)
SAMPLE_TAKEN = Family(
    "zenvoy_sample_timestamp_seconds",
    "gauge",
    "When the latest sample with an Envoy in it was taken: time() minus this is its age.",
)
SAMPLE_COMPLETE_TAKEN = Family(
    "zenvoy_sample_complete_timestamp_seconds", "gauge", "When the latest complete sample was taken."
)
ENVOYS = Family("zenvoy_xds_connected_envoys", "gauge", "Envoys that are connected.")
ENVOY_CONNECTED = Family(
    "zenvoy_xds_connected_timestamp_seconds", "gauge", "When a connected Envoy connected.", ("envoy",), "1 an Envoy"
)
ACKED = Family(
    "zenvoy_xds_acked_version_info",
    "gauge",
    "1 for the version that a connected Envoy acknowledged last; not of endpoints, which changes with each wake.",
    ("envoy", "type", "version"),
    "3 an Envoy",
)
ACKS = Family(
    "zenvoy_xds_acks", "counter", "Acknowledgements of endpoints by a connected Envoy.", ("envoy",), "1 an Envoy"
)
NACKS = Family(
    "zenvoy_xds_nacks", "counter", "Configurations that a connected Envoy rejected.", ("envoy",), "1 an Envoy"
)
HOLDERS = Family("zenvoy_holders_connected", "gauge", "Holders that are connected.")
SERVICES = Family("zenvoy_services", "gauge", "Services that there are.")
READY = Family("zenvoy_ready", "gauge", "1 once every service is known and Envoys are answered.")
LEADER = Family("zenvoy_leader", "gauge", "1 where services may be put to sleep, which on one machine is always here.")
API_CALLS = Family(
    "zenvoy_api_calls",
    "counter",
    "Calls to the API server that ended, and watches that began; in a cluster only.",
    ("method", "code"),
    "1 a method and code",
)
REFUSED_STREAMS = Family(
    "zenvoy_streams_refused",
    "counter",
    "Streams of Envoys, holders and replicas that were refused, by kind (xDS, holder, peer) and gRPC status.",
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
BUILD = Family("zenvoy_build_info", "gauge", "1; the labels say what runs.", ("version", "python"))

HISTOGRAMS = (WAKE, WAKE_PART, WAKE_REQUESTS, WAKE_CONNECTIONS, LOOP_LAG)
PRESENT = (
    *(SAMPLES, SAMPLES_UNKNOWN, SAMPLE_COMPLETE, SAMPLE_UNKNOWN, SAMPLE_TAKEN, SAMPLE_COMPLETE_TAKEN),
    *(ENVOYS, ENVOY_CONNECTED, ACKED, ACKS, NACKS, HOLDERS, SERVICES, READY, LEADER, API_CALLS, REFUSED_STREAMS),
    *(PLAINTEXT, RECORDS_FAILING, CERTIFICATE_EXPIRY, BUILD),
)
CONTROL_FAMILIES = (*HISTOGRAMS, *PRESENT)
"""Rendered by prometheus-client."""
