"""Why a sample says nothing about any service: in words for people, and as one of a few causes for metrics.

Rule: whoever doubts says of which cause, so that none is counted as anything else. What is doubted about one service
alone is no cause here. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Bounded: the label `cause` of metrics. docs/runbooks/TrafficUnknown.md says what each means."""

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


@dataclass(frozen=True, slots=True)
class Doubt:
    """Nothing may be put to sleep."""

    cause: Cause
    words: str


def words(doubt: Doubt | None) -> str | None:
    """For people; None where there is no doubt."""
    return doubt.words if doubt else None
