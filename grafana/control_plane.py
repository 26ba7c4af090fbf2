"""Control plane: zenvoy itself. Its xDS and Envoys, its samples, its event loop, and the holders."""

from __future__ import annotations

from grafana.model import Board, Column, Kind, Level, Panel, Query, Row, Unit
from grafana.queries import NO_API_SERVER, counted
from grafana.theme import BAD, CAUSE_COLORS, GOOD, STATE_COLORS, WARNING

WINDOW = "5m"
NODE = "zenvoy_node"
"""The label that zenvoy's bootstrap makes Envoy put on its statistics."""
_OTHERS = 'envoy_cluster_name!~"zenvoy_ads|zenvoy_admin"'
"""Clusters of services, and not those by which Envoy reaches the reconciler and itself."""
_RECONCILER = "and on (job, instance) zenvoy_ready"
ALL = "all samples"
_UNKNOWN = "zenvoy_samples_unknown_total"
_FAILED = 'zenvoy_api_calls_total{code!~"2.."}'
NO_PODS = "only in a cluster Prometheus knows pods"


def _number(
    title: str, description: str, expr: str, *levels: Level, unit: Unit = Unit.COUNT, words: bool = False
) -> Panel:
    names = {0: ("no", BAD), 1: ("yes", GOOD)} if words else {}
    return Panel(
        title, description, Kind.NUMBER, (Query(expr, title),), unit, width=4, height=4, levels=levels, names=names
    )


def _lines(title: str, description: str, *queries: Query, unit: Unit = Unit.COUNT, width: int = 8) -> Panel:
    return Panel(title, description, Kind.LINES, queries, unit, width=width)


HEALTH = Row(
    "Health",
    (
        _number(
            "Ready",
            "Whether every service is known and Envoys are answered, by a reconciler at least.",
            "max(zenvoy_ready)",
            words=True,
        ),
        _number(
            "Leader",
            "Whether there is a reconciler that may put services to sleep. Waking needs none.",
            "max(zenvoy_leader)",
            words=True,
        ),
        _number(
            "Envoys connected",
            "Envoys with an xDS stream. Without one, nothing is put to sleep.",
            "sum(zenvoy_xds_connected_envoys)",
            *(Level(None, BAD), Level(1, GOOD)),
        ),
        _number(
            "Holders connected",
            "Holders with a stream to the reconciler. Without one, nothing is put to sleep.",
            "sum(zenvoy_holders_connected)",
            *(Level(None, BAD), Level(1, GOOD)),
        ),
        _number(
            "Age of the last complete sample",
            "How old the latest sample is that counts for anything. While it is too old, nothing is put to sleep.",
            "time() - max(zenvoy_sample_complete_timestamp_seconds)",
            *(Level(None, GOOD), Level(30, WARNING), Level(120, BAD)),
            unit=Unit.SECONDS,
        ),
        _number(
            "Configurations rejected",
            "How often Envoys that are connected rejected what they were sent (NACK); they go on with what they had.",
            "sum(zenvoy_xds_nacks_total)",
            *(Level(None, GOOD), Level(1, BAD)),
        ),
    ),
)

XDS = Row(
    "xDS",
    (
        _lines(
            "Acknowledgements",
            "Changes of endpoints that each Envoy acknowledged, a second: one for each wake and each sleep, at least.",
            Query("sum by (envoy) (rate(zenvoy_xds_acks_total[$__rate_interval]))", "{{envoy}}"),
            unit=Unit.EVENTS_PER_SECOND,
        ),
        _lines(
            "Rejections",
            f"Configurations that each Envoy rejected (NACK) in the {WINDOW} before. The log tells why.",
            Query(f"sum by (envoy) (increase(zenvoy_xds_nacks_total[{WINDOW}]))", "{{envoy}}"),
        ),
        Panel(
            "Versions in force",
            "What each Envoy acknowledged last, by type. Envoys that differ have not all been served the same yet.",
            Kind.TABLE,
            (
                Query(
                    "max by (envoy, type, version) (zenvoy_xds_acked_version_info)",
                    may_be_empty="an Envoy that comes back after a restart with everything as it should be is sent "
                    "nothing, and so acknowledges nothing",
                ),
            ),
            width=8,
            no_value="Nothing had to be sent since the Envoys connected",
            columns=(Column("envoy", "Envoy"), Column("type", "Type"), Column("version", "Version")),
        ),
    ),
)

ENVOYS = Row(
    "Each Envoy",
    (
        _lines(
            "Requests through Envoy",
            "Requests a second that each Envoy sent on, to services and holders.",
            Query(
                f"sum by ({NODE}) (rate(envoy_cluster_upstream_rq_total{{{_OTHERS}}}[$__rate_interval]))",
                f"{{{{{NODE}}}}}",
            ),
            unit=Unit.PER_SECOND,
        ),
        _lines(
            "Connections from Envoy",
            "Connections that each Envoy has open to services and holders.",
            Query(
                f"sum by ({NODE}) (envoy_cluster_upstream_cx_active{{{_OTHERS}}})",
                f"{{{{{NODE}}}}}",
            ),
        ),
        Panel(
            "Running and connected for",
            "How long each Envoy has been running, and how long its xDS stream has been up.",
            Kind.BARS,
            (
                Query(f"max by ({NODE}) (envoy_server_uptime)", f"{{{{{NODE}}}}} runs"),
                Query("time() - max by (envoy) (zenvoy_xds_connected_timestamp_seconds)", "{{envoy}} connected"),
            ),
            Unit.SECONDS,
            width=8,
        ),
    ),
)

SAMPLES = Row(
    "Samples of traffic",
    (
        Panel(
            "Samples",
            "Samples taken a second, and of these the ones that say nothing about any service, by those causes that "
            "there were in the range. Each of them keeps services awake: unknown is not idle.",
            Kind.LINES,
            (
                Query("sum(rate(zenvoy_samples_total[$__rate_interval]))", ALL),
                Query(
                    f"sum by (cause) (rate({_UNKNOWN}[$__rate_interval])) "
                    f"and sum by (cause) (increase({_UNKNOWN}[$__range] @ end())) > 0",
                    "{{cause}}",
                    "every sample may say something",
                ),
            ),
            Unit.EVENTS_PER_SECOND,
            width=8,
            colors={ALL: "#6e9fff", **CAUSE_COLORS},
        ),
        _lines(
            "Age of samples",
            "How old the latest sample is, and the latest complete one.",
            Query("time() - max(zenvoy_sample_timestamp_seconds)", "latest"),
            Query("time() - max(zenvoy_sample_complete_timestamp_seconds)", "latest complete"),
            unit=Unit.SECONDS,
        ),
        Panel(
            "Samples that say nothing",
            "By cause, in the range; docs/runbooks/TrafficUnknown.md explains each.",
            Kind.BARS,
            (Query(f"sum by (cause) ({counted(_UNKNOWN)}) > 0", "{{cause}}", "every sample may say something"),),
            width=8,
            no_value="Every sample said something",
            colors=CAUSE_COLORS,
        ),
    ),
)

RECONCILER = Row(
    "Reconciler",
    (
        _lines(
            "Event-loop lag",
            f"How late the event loop came to a timer, in the {WINDOW} before. Everything that zenvoy decides waits so "
            "long.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le) (rate(zenvoy_event_loop_lag_seconds_bucket[{WINDOW}])))",
                    legend,
                )
                for share, legend in ((0.5, "half of the time"), (0.99, "99 %"))
            ),
            unit=Unit.SECONDS,
        ),
        _lines(
            "CPU",
            "CPU-seconds a second of each reconciler.",
            Query(f"rate(process_cpu_seconds_total[$__rate_interval]) {_RECONCILER}", "{{instance}}"),
            unit=Unit.SHARE,
        ),
        _lines(
            "Memory",
            "Resident memory of each reconciler.",
            Query(f"process_resident_memory_bytes {_RECONCILER}", "{{instance}}"),
            unit=Unit.BYTES,
        ),
    ),
)

LEADER = Row(
    "Leader and API server",
    (
        Panel(
            "Who leads",
            "Which reconciler may put services to sleep, of those that there are; the others only wake. On one machine "
            "there is one.",
            Kind.TIMELINE,
            (
                Query('max by (pod) (zenvoy_leader{pod!=""})', "{{pod}}", NO_PODS),
                Query(
                    'max by (instance) (zenvoy_leader{pod=""})', "{{instance}}", "in a cluster they are called by pod"
                ),
            ),
            width=8,
            names={0: ("follows", STATE_COLORS["ScaledToZero"]), 1: ("leads", GOOD)},
        ),
        Panel(
            "Calls to the API server",
            "Calls that ended a second, by method; WATCH: watches that began.",
            Kind.LINES,
            (Query("sum by (method) (rate(zenvoy_api_calls_total[$__rate_interval]))", "{{method}}", NO_API_SERVER),),
            Unit.EVENTS_PER_SECOND,
            width=8,
            no_value="On one machine there is no API server",
        ),
        Panel(
            "Calls that failed",
            "Calls to the API server in the range that were not answered well, by method and code; none: there was no "
            "answer. A few 404, 409 and 422 are ordinary: somebody else was quicker.",
            Kind.BARS,
            (
                Query(
                    f"sum by (method, code) ({counted(_FAILED)}) > 0",
                    "{{method}} {{code}}",
                    NO_API_SERVER,
                ),
            ),
            width=8,
            no_value="No call failed",
        ),
    ),
)

HOLDERS = Row(
    "Holders",
    (
        _lines(
            "Connections in holders",
            "Connections that wait (held) and that are connected through (relayed), in each holder.",
            Query(
                "sum by (instance) (zenvoy_holder_held)",
                "{{instance}} held",
            ),
            Query(
                "sum by (instance) (zenvoy_holder_relayed)",
                "{{instance}} relayed",
            ),
        ),
        _lines(
            "Descriptors",
            "Share of the descriptors that each holder may use. At 100 % it refuses connections.",
            Query("zenvoy_holder_descriptors / zenvoy_holder_descriptors_limit", "{{instance}}"),
            unit=Unit.SHARE,
        ),
        Panel(
            "Stream to the reconciler",
            "Whether each holder is spoken to. While it is not, it goes on with what it last knew.",
            Kind.TIMELINE,
            (Query("zenvoy_holder_stream_up", "{{instance}}"),),
            width=8,
            names={0: ("down", BAD), 1: ("up", GOOD)},
        ),
    ),
)

BOARD = Board(
    "zenvoy-control-plane",
    "zenvoy: Control plane",
    "zenvoy itself: xDS and each Envoy, samples of traffic, the reconciler's event loop, who leads, the API server, "
    "and the holders.",
    (HEALTH, XDS, ENVOYS, SAMPLES, RECONCILER, LEADER, HOLDERS),
    (),
)
