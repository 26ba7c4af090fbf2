"""The Control plane dashboard: zenvoy itself."""

from __future__ import annotations

from grafana.model import Board, Column, Kind, Level, Panel, Query, Row, Unit
from grafana.queries import NO_API_SERVER, counted
from grafana.theme import BAD, CAUSE_COLORS, GOOD, STATE_COLORS, WARNING

WINDOW = "5m"
NODE = "zenvoy_node"
"""The label that zenvoy's bootstrap adds to Envoy's statistics."""
_OTHERS = 'envoy_cluster_name!~"zenvoy_ads|zenvoy_admin"'
"""Excludes the clusters by which Envoy reaches the reconciler and its own admin interface."""
_RECONCILER = "and on (job, instance) zenvoy_ready"
ALL = "all samples"
_UNKNOWN = "zenvoy_samples_unknown_total"
_FAILED = 'zenvoy_api_calls_total{code!~"2.."}'
NO_PODS = "Prometheus knows no pods, as on one machine"


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
            "yes if at least one reconciler knows every service and serves Envoys.",
            "max(zenvoy_ready)",
            words=True,
        ),
        _number(
            "Leader",
            "yes if a reconciler is the leader. Only the leader puts services to sleep; a wake needs no leader.",
            "max(zenvoy_leader)",
            words=True,
        ),
        _number(
            "Envoys connected",
            "Envoys with an xDS stream. Without any, no service is put to sleep.",
            "sum(zenvoy_xds_connected_envoys)",
            *(Level(None, BAD), Level(1, GOOD)),
        ),
        _number(
            "Holders connected",
            "Holders with a stream to the reconciler. Without any, no service is put to sleep.",
            "sum(zenvoy_holders_connected)",
            *(Level(None, BAD), Level(1, GOOD)),
        ),
        _number(
            "Age of the last complete sample",
            "Age of the last complete sample. While it is too old, no service is put to sleep.",
            "time() - max(zenvoy_sample_complete_timestamp_seconds)",
            *(Level(None, GOOD), Level(30, WARNING), Level(120, BAD)),
            unit=Unit.SECONDS,
        ),
        _number(
            "Configurations rejected",
            "Configuration updates that connected Envoys rejected (NACK). They keep the previous configuration.",
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
            "Endpoint updates per second that each Envoy acknowledged: at least one for each wake and each sleep.",
            Query("sum by (envoy) (rate(zenvoy_xds_acks_total[$__rate_interval]))", "{{envoy}}"),
            unit=Unit.EVENTS_PER_SECOND,
        ),
        _lines(
            "Rejections",
            f"Configuration updates that each Envoy rejected (NACK) in the previous {WINDOW}. The log has the reason.",
            Query(f"sum by (envoy) (increase(zenvoy_xds_nacks_total[{WINDOW}]))", "{{envoy}}"),
        ),
        Panel(
            "Acknowledged versions",
            "The version that each Envoy acknowledged last, by type. If Envoys differ, some have not applied the "
            "latest one yet.",
            Kind.TABLE,
            (
                Query(
                    "max by (envoy, type, version) (zenvoy_xds_acked_version_info)",
                    may_be_empty="every Envoy reconnected with a current configuration and was sent no update",
                ),
            ),
            width=8,
            no_value="No update was sent since the Envoys connected",
            columns=(Column("envoy", "Envoy"), Column("type", "Type"), Column("version", "Version")),
        ),
    ),
)

ENVOYS = Row(
    "Envoys",
    (
        _lines(
            "Requests through Envoy",
            "Requests per second that each Envoy forwarded to services and holders.",
            Query(
                f"sum by ({NODE}) (rate(envoy_cluster_upstream_rq_total{{{_OTHERS}}}[$__rate_interval]))",
                f"{{{{{NODE}}}}}",
            ),
            unit=Unit.PER_SECOND,
        ),
        _lines(
            "Connections from Envoy",
            "Open connections from each Envoy to services and holders.",
            Query(
                f"sum by ({NODE}) (envoy_cluster_upstream_cx_active{{{_OTHERS}}})",
                f"{{{{{NODE}}}}}",
            ),
        ),
        Panel(
            "Uptime and connection age",
            "Uptime of each Envoy, and age of its xDS stream.",
            Kind.BARS,
            (
                Query(f"max by ({NODE}) (envoy_server_uptime)", f"{{{{{NODE}}}}} uptime"),
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
            "Samples per second, and the unknown ones by cause. An unknown sample keeps services awake.",
            Kind.LINES,
            (
                Query("sum(rate(zenvoy_samples_total[$__rate_interval]))", ALL),
                Query(
                    f"sum by (cause) (rate({_UNKNOWN}[$__rate_interval])) "
                    f"and sum by (cause) (increase({_UNKNOWN}[$__range] @ end())) > 0",
                    "{{cause}}",
                    "no sample was unknown",
                ),
            ),
            Unit.EVENTS_PER_SECOND,
            width=8,
            colors={ALL: "#6e9fff", **CAUSE_COLORS},
        ),
        _lines(
            "Age of samples",
            "Age of the latest sample, and of the latest complete one.",
            Query("time() - max(zenvoy_sample_timestamp_seconds)", "latest"),
            Query("time() - max(zenvoy_sample_complete_timestamp_seconds)", "latest complete"),
            unit=Unit.SECONDS,
        ),
        Panel(
            "Unknown samples",
            "Unknown samples in the range, by cause. docs/runbooks/TrafficUnknown.md explains each cause.",
            Kind.BARS,
            (Query(f"sum by (cause) ({counted(_UNKNOWN)}) > 0", "{{cause}}", "no sample was unknown"),),
            width=8,
            no_value="No unknown sample",
            colors=CAUSE_COLORS,
        ),
    ),
)

RECONCILER = Row(
    "Reconciler",
    (
        _lines(
            "Event-loop lag",
            f"Delay of timers in the event loop over the previous {WINDOW}. Every decision is delayed by this time.",
            *(
                Query(
                    f"histogram_quantile({share}, sum by (le) (rate(zenvoy_event_loop_lag_seconds_bucket[{WINDOW}])))",
                    legend,
                )
                for share, legend in ((0.5, "50 %"), (0.99, "99 %"))
            ),
            unit=Unit.SECONDS,
        ),
        _lines(
            "CPU",
            "CPU seconds per second of each reconciler.",
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
            "Leader over time",
            "The reconciler that is the leader. On one machine there is only one reconciler.",
            Kind.TIMELINE,
            (
                Query('max by (pod) (zenvoy_leader{pod!=""})', "{{pod}}", NO_PODS),
                Query(
                    'max by (instance) (zenvoy_leader{pod=""})',
                    "{{instance}}",
                    "reconcilers are named by pod, as in a cluster",
                ),
            ),
            width=8,
            names={0: ("follower", STATE_COLORS["ScaledToZero"]), 1: ("leader", GOOD)},
        ),
        Panel(
            "Calls to the API server",
            "Completed calls per second by method. WATCH counts watches that were started.",
            Kind.LINES,
            (Query("sum by (method) (rate(zenvoy_api_calls_total[$__rate_interval]))", "{{method}}", NO_API_SERVER),),
            Unit.EVENTS_PER_SECOND,
            width=8,
            no_value="No API server",
        ),
        Panel(
            "Failed calls",
            "Failed calls to the API server in the range, by method and code; none means no answer. A few 404, 409, "
            "and 422 are normal: another writer was faster.",
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
            "Held and relayed connections in each holder.",
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
            "Share of its file descriptor limit that each holder uses. At 100 % it refuses connections.",
            Query("zenvoy_holder_descriptors / zenvoy_holder_descriptors_limit", "{{instance}}"),
            unit=Unit.SHARE,
        ),
        Panel(
            "Stream to the reconciler",
            "up while the holder is connected. While disconnected, it continues with its last assignments.",
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
    "zenvoy itself: xDS and Envoys, traffic samples, the reconciler's event loop, the leader, the API server, and the "
    "holders.",
    (HEALTH, XDS, ENVOYS, SAMPLES, RECONCILER, LEADER, HOLDERS),
    (),
)
