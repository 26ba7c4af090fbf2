"""The promise to users, on a node: label a Service, and its workload sleeps and wakes on a connection."""

from __future__ import annotations

import re

import pytest

from tests.cluster.harness import ToolFailed
from tests.cluster.release import PATIENCE_SECONDS, Release, Shop, postgres, psql, web
from tests.e2e.harness import until

QUICK = {"idle_after": "2s"}


@pytest.mark.parametrize("zenvoy", ["anyip", "tproxy"], indirect=True)
def test_labelled_service_sleeps_and_wakes_on_a_request(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("web", replicas=2))
    shop.until_rolled_out("web")
    shop.label("web", **QUICK)
    shop.until_asleep("web")
    until("its pods are gone", lambda: not shop.kubectl("get", "pods", "-o", "name"), PATIENCE_SECONDS)
    shop.idles_after("web", "10m")  # so that it is still awake when its replicas are counted

    answer = zenvoy.curl(shop.host("web"))

    assert answer.status == 200
    assert answer.body.split()[1:4] == ["GET", shop.host("web"), "/"]
    shop.until("web", "Active", "Idle")
    assert shop.replicas("web") == 2
    until("its Events", lambda: {"WakeRequested", "Woken", "Idle", "Draining", "ScaledToZero"} <= shop.events("web"))
    assert shop.first_client("web")
    heading, line = shop.kubectl("get", "ssvc", "web").splitlines()
    assert heading.split() == ["NAME", "STATE", "TARGET", "READY", "AWAKE", "SINCE", "AGE"]
    assert line.split()[0] == "web"


@pytest.mark.parametrize("zenvoy", ["anyip", "tproxy"], indirect=True)
def test_stateful_set_database_keeps_its_rows(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*postgres("db", shop.on_disk("db")))
    shop.until_rolled_out("db", kind="statefulset")
    shop.label("db", **QUICK, target="StatefulSet/db", protocol="tcp", listen="5432")
    until("it takes connections", lambda: takes_connections(zenvoy.address), PATIENCE_SECONDS)
    psql(zenvoy.address, "create table t (n int); insert into t values (7)")
    shop.until_asleep("db", "statefulset")

    assert psql(zenvoy.address, "select n from t") == "7"
    until("its wake is reported", lambda: {"WakeRequested", "Woken"} <= shop.events("db"))
    assert shop.first_client("db")


def test_missing_image_refuses_clients_with_its_class_alone(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("web"))
    shop.until_rolled_out("web")
    shop.label("web", **QUICK, wake_timeout="20s", hold_timeout="25s")
    shop.until("web", "ScaledToZero")
    shop.kubectl("set", "image", "deployment/web", "web=localhost/nowhere:1")

    answer = zenvoy.refusal(shop.host("web"), "ImagePullBackOff")

    assert re.search(r": ImagePullBackOff \(reference [0-9a-f]{8}\)$", answer.body.strip()), answer.body
    assert "nowhere" not in answer.body
    stalled = ("get", "ssvc", "web", "-o", "jsonpath={.status.conditions[?(@.type=='Stalled')]}")
    until("its status has the whole reason", lambda: "nowhere" in shop.kubectl(*stalled))
    until("its Event", lambda: "WakeStalled" in shop.events("web"))


def test_crash_loop_refuses_clients_with_allowed_details(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("web"))
    shop.until_rolled_out("web")
    shop.label("web", **QUICK, wake_timeout="35s", hold_timeout="40s", refusal_details="true")
    shop.until("web", "ScaledToZero")
    shop.kubectl("set", "env", "deployment/web", "EXIT=3")

    zenvoy.refusal(shop.host("web"), "CrashLoopBackOff", "exit code 3")

    # Fix it; zenvoy notices by itself.
    shop.kubectl("set", "env", "deployment/web", "EXIT-")
    until("it answers again", lambda: zenvoy.curl(shop.host("web")).status == 200, PATIENCE_SECONDS)


def takes_connections(address: str) -> bool:
    try:
        return psql(address, "select 1") == "1"
    except ToolFailed:  # Envoy does not listen there yet
        return False
