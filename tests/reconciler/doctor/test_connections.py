"""What doctor makes of what reconcilers say of themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from reconciler.doctor.connections import check_certificates, check_connections
from reconciler.doctor.findings import Finding


def world(**changes: Any) -> dict[str, Any]:
    sample = {"source": "Envoy's statistics", "takenAt": None, "ageSeconds": 1.0, "unknown": None}
    healthy = {
        "ready": True,
        "services": 1,
        "sample": sample | changes.pop("sample", {}),
        "envoys": [{"id": "edge-1", "lastNack": None}],
        "holders": [{"id": "holder-1", "mode": "anyip", "connected": True}],
        "standing": None,
    }
    return healthy | changes


def found(*worlds: dict[str, Any]) -> list[Finding]:
    named = {f"zenvoy-{number}": one for number, one in enumerate(worlds)}
    return [finding for one in check_connections(named) for finding in one.found]


def test_nothing_is_wrong_where_all_are_connected() -> None:
    assert found(world()) == []
    assert [(one.check, one.said) for one in check_connections({"zenvoy-0": world()})] == [
        ("Envoys", "1 connected"),
        ("holders", "1 connected, mode anyip"),
        ("samples", "by Envoy's statistics, 1 s old"),
    ]


def test_an_envoy_is_connected_to_any_replica() -> None:
    assert found(world(), world(envoys=[], holders=[])) == []
    away = world(envoys=[{"id": "edge-1", "away": True}])
    assert found(world(), away) == [], "it moved from one to the other"


def test_nobody_is_connected() -> None:
    envoys, holders = found(world(envoys=[], holders=[], sample={"unknown": "no Envoy is connected"}))
    assert "nobody can reach a service" in envoys.what
    assert "cannot be woken" in holders.what


def test_somebody_went_away() -> None:
    envoy, holder = found(
        world(
            envoys=[{"id": "edge-1", "lastNack": None}, {"id": "edge-2", "away": True}],
            holders=[
                {"id": "holder-1", "mode": "tproxy", "connected": True},
                {"id": "holder-2", "mode": "tproxy", "connected": False},
            ],
        )
    )
    assert (envoy.where, holder.where) == ("Envoy edge-2", "holder holder-2")


@pytest.mark.parametrize(
    "passing",
    ["no sample yet", "only one sample so far", "Envoy edge-1 restarted", "Envoy edge-1 was not in the sample before"],
)
def test_a_doubt_that_goes_by_itself_is_none(passing: str) -> None:
    assert found(world(sample={"unknown": passing})) == []


@pytest.mark.parametrize(("source", "remedy"), [("Prometheus at http://p", "target is up"), ("Envoys", "9902")])
def test_a_doubt_that_stays(source: str, remedy: str) -> None:
    (finding,) = found(world(sample={"source": source, "unknown": "Envoy edge-1 is missing: it cannot be reached"}))
    assert "nothing is put to sleep" in finding.what and "edge-1" in finding.what
    assert remedy in finding.remedy


def test_a_series_that_prometheus_lost_is_named_with_what_loses_it() -> None:
    lost = "envoy_cluster_upstream_rq_active, envoy_cluster_upstream_cx_active"
    unknown = f"Envoy edge-1 is missing: Prometheus lacks {lost} of it"
    (finding,) = found(world(sample={"source": "Prometheus at http://p", "unknown": unknown}))
    assert lost in finding.what
    assert "metric_relabel_configs" in finding.remedy and finding.remedy.endswith(lost)


def test_one_that_does_not_know_every_service_yet() -> None:
    (finding,) = found(world(ready=False))
    assert finding.where == "zenvoy-0"


def standing(leads: bool, unknown: str | None = None) -> dict[str, Any]:
    return {"replica": "zenvoy-0", "leads": leads, "leader": None, "replicas": [], "connected": [], "unknown": unknown}


def test_only_the_leader_takes_samples() -> None:
    leader = world(standing=standing(leads=True))
    follower = world(standing=standing(leads=False), sample={"unknown": "Envoy edge-1 is missing: not in the sample"})
    assert found(leader, follower) == []
    assert check_connections({"zenvoy-0": leader, "zenvoy-1": follower})[-1].said == "by Envoy's statistics, 1 s old"


def test_a_leader_that_misses_another_replica() -> None:
    (finding,) = found(world(standing=standing(leads=True, unknown="replica 10.0.0.2 is not connected")))
    assert "10.0.0.2" in finding.what and "18000" in finding.remedy
    new = "this replica leads for a short time only; 3 s to go"
    assert found(world(standing=standing(leads=True, unknown=new))) == []


@pytest.mark.parametrize(("rules", "problems"), [(False, 1), (True, 0), (None, 0)])
def test_a_holder_without_its_rules(rules: bool | None, problems: int) -> None:
    holder = {"id": "holder-1", "mode": "tproxy", "connected": True, "rules": rules}
    told = found(world(holders=[holder]))
    assert len(told) == problems
    assert all("zenvoy-tproxy rules --install" in finding.remedy for finding in told)


NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_doctor_certificate_not_renewed_is_found() -> None:
    ends = {"ca": "2028-01-01T00:00:00+00:00", "proxy": "2026-12-05T00:00:00+00:00"}
    found = check_certificates({"zenvoy-0": {"standing": {"plaintext": False, "certificates": ends}}}, NOW)
    assert [finding.what for finding in found.found] == ["the certificate of proxy expires at 2026-12-05 00:00 UTC"]
    assert found.said == "valid until 2026-12-05"


def test_doctor_plaintext_is_found() -> None:
    found = check_certificates({"zenvoy-0": {"standing": {"plaintext": True, "certificates": {}}}}, NOW)
    assert ["open without TLS" in finding.what for finding in found.found] == [True]


def test_doctor_renewed_certificates_are_no_finding() -> None:
    ends = {"ca": "2028-01-01T00:00:00+00:00", "proxy": "2027-01-05T00:00:00+00:00"}
    assert check_certificates({"zenvoy-0": {"standing": {"plaintext": False, "certificates": ends}}}, NOW).found == ()
