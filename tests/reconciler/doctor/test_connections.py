"""Findings of `zenvoy doctor` about the live data of reconcilers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.core.reasons import UNKNOWN_REASONS, Reason
from reconciler.doctor.connections import check_certificates, check_connections
from reconciler.doctor.findings import Finding, FindingCode

TRANSIENT = {Reason.FIRST_SAMPLE, Reason.ENVOY_RESTARTED, Reason.ENVOY_NEW, Reason.LEADER_NEW}
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def overview(**changes: Any) -> dict[str, Any]:
    """Return the live data of a reconciler in which everything is connected, with changes."""
    sample = {
        "source": "Envoy's statistics",
        "takenAt": None,
        "ageSeconds": 1.0,
        "unknown": None,
        "unknownReason": None,
    }
    healthy = {
        "ready": True,
        "services": 1,
        "sample": sample | changes.pop("sample", {}),
        "envoys": [{"id": "edge-1", "lastNack": None}],
        "holders": [{"id": "holder-1", "mode": "anyip", "connected": True}],
        "standing": None,
    }
    return healthy | changes


def standing(leads: bool, **changes: Any) -> dict[str, Any]:
    """Return the live data of a replica about itself and the others."""
    alone = {"replica": "zenvoy-0", "leads": leads, "leader": None, "replicas": [], "connected": []}
    return {**alone, "unknown": None, "unknownReason": None, **changes}


def findings(*overviews: dict[str, Any]) -> list[Finding]:
    named = {f"zenvoy-{number}": one for number, one in enumerate(overviews)}
    return [finding for one in check_connections(named) for finding in one.findings]


def codes(*overviews: dict[str, Any]) -> list[tuple[FindingCode, str]]:
    return [(finding.code, finding.place) for finding in findings(*overviews)]


def test_connections_all_connected_have_no_findings() -> None:
    assert codes(overview()) == []
    assert [(one.check, one.summary) for one in check_connections({"zenvoy-0": overview()})] == [
        ("Envoys", "1 connected"),
        ("holders", "1 connected, mode anyip"),
        ("samples", "by Envoy's statistics, 1 s old"),
    ]


def test_envoy_connected_to_other_replica_is_no_finding() -> None:
    assert codes(overview(), overview(envoys=[], holders=[])) == []
    away = overview(envoys=[{"id": "edge-1", "away": True}])
    assert codes(overview(), away) == [], "it moved from one to the other"


def test_connections_none_are_found() -> None:
    unknown = {"unknown": "no Envoy is connected", "unknownReason": Reason.NO_ENVOY.value}
    found = codes(overview(envoys=[], holders=[], sample=unknown))
    assert found == [(FindingCode.NO_ENVOY, "Envoys"), (FindingCode.NO_HOLDER, "holders")]


def test_connections_lost_are_found_by_name() -> None:
    found = codes(
        overview(
            envoys=[{"id": "edge-1", "lastNack": None}, {"id": "edge-2", "away": True}],
            holders=[
                {"id": "holder-1", "mode": "tproxy", "connected": True},
                {"id": "holder-2", "mode": "tproxy", "connected": False},
            ],
        )
    )
    assert found == [
        (FindingCode.ENVOY_DISCONNECTED, "Envoy edge-2"),
        (FindingCode.HOLDER_DISCONNECTED, "holder holder-2"),
    ]


@pytest.mark.parametrize("code", [Reason.FIRST_SAMPLE, Reason.ENVOY_RESTARTED, Reason.ENVOY_NEW])
def test_samples_transient_unknown_is_no_finding(code: Reason) -> None:
    assert codes(overview(sample={"unknown": "any words", "unknownReason": code.value})) == []


@pytest.mark.parametrize("code", sorted(set(UNKNOWN_REASONS) - TRANSIENT - {Reason.NO_ENVOY}))
@pytest.mark.parametrize(("provider", "remedy"), [("prometheus", "target of every Envoy is up"), ("envoy", "9902")])
def test_samples_lasting_unknown_is_found(code: Reason, provider: str, remedy: str) -> None:
    unknown = {"unknown": "Envoy edge-1 is missing: it cannot be reached", "unknownReason": code.value}
    (finding,) = findings(overview(sample={"provider": provider, **unknown}))
    assert (finding.code, finding.place) == (FindingCode.SAMPLES_UNKNOWN, "zenvoy-0")
    assert "edge-1" in finding.message
    assert remedy in finding.remedy


def test_samples_unknown_without_cause_is_found() -> None:
    """A reconciler of another version reports words alone."""
    sample = {"source": "Envoys' statistics", "takenAt": None, "ageSeconds": 1.0, "unknown": "no sample yet"}
    assert codes({**overview(), "sample": sample}) == [(FindingCode.SAMPLES_UNKNOWN, "zenvoy-0")]


def test_samples_lost_series_is_named_with_relabelling() -> None:
    lost = "envoy_cluster_upstream_rq_active, envoy_cluster_upstream_cx_active"
    unknown = {"unknown": f"Envoy edge-1 is missing: Prometheus lacks {lost} of it", "unknownReason": "envoy_missing"}
    (finding,) = findings(overview(sample={"provider": "prometheus", **unknown}))
    assert lost in finding.message
    assert "metric_relabel_configs" in finding.remedy


def test_reconciler_not_ready_is_found() -> None:
    assert codes(overview(ready=False)) == [(FindingCode.RECONCILER_NOT_READY, "zenvoy-0")]


def test_samples_only_leader_takes_them() -> None:
    leader = overview(standing=standing(leads=True))
    missing = {"unknown": "Envoy edge-1 is missing: not in the sample", "unknownReason": "envoy_missing"}
    follower = overview(standing=standing(leads=False), sample=missing)
    assert codes(leader, follower) == []
    results = check_connections({"zenvoy-0": leader, "zenvoy-1": follower})
    assert results[-1].summary == "by Envoy's statistics, 1 s old"


def test_leader_missing_replica_is_found() -> None:
    unknown = {"unknown": "replica 10.0.0.2 is not connected", "unknownReason": Reason.REPLICA_MISSING.value}
    (finding,) = findings(overview(standing=standing(leads=True, **unknown)))
    assert finding.code is FindingCode.REPLICAS_UNKNOWN
    assert "10.0.0.2" in finding.message and "18000" in finding.remedy


def test_leader_newly_elected_is_no_finding() -> None:
    unknown = {
        "unknown": "this replica has been leading for a short time; 3 s left",
        "unknownReason": Reason.LEADER_NEW.value,
    }
    assert codes(overview(standing=standing(leads=True, **unknown))) == []


@pytest.mark.parametrize(("rules", "problems"), [(False, 1), (True, 0), (None, 0)])
def test_holder_without_redirect_rules_is_found(rules: bool | None, problems: int) -> None:
    holder = {"id": "holder-1", "mode": "tproxy", "connected": True, "rules": rules}
    found = findings(overview(holders=[holder]))
    assert [finding.code for finding in found] == [FindingCode.REDIRECT_RULES_MISSING] * problems
    assert all("zenvoy-tproxy rules --install" in finding.remedy for finding in found)


def test_certificate_not_renewed_is_found() -> None:
    ends = {"ca": "2028-01-01T00:00:00+00:00", "proxy": "2026-12-05T00:00:00+00:00"}
    found = check_certificates({"zenvoy-0": {"standing": {"plaintext": False, "certificates": ends}}}, NOW)
    (finding,) = found.findings
    assert (finding.code, finding.place) == (FindingCode.CERTIFICATE_EXPIRES, "zenvoy-0")
    assert "certificate of proxy" in finding.message and "2026-12-05 00:00 UTC" in finding.message
    assert found.summary == "valid until 2026-12-05"


def test_reconciler_in_plaintext_is_found() -> None:
    found = check_certificates({"zenvoy-0": {"standing": {"plaintext": True, "certificates": {}}}}, NOW)
    assert [finding.code for finding in found.findings] == [FindingCode.PLAINTEXT]


def test_certificates_renewed_have_no_findings() -> None:
    ends = {"ca": "2028-01-01T00:00:00+00:00", "proxy": "2027-01-05T00:00:00+00:00"}
    live = {"zenvoy-0": {"standing": {"plaintext": False, "certificates": ends}}}
    assert check_certificates(live, NOW).findings == ()
