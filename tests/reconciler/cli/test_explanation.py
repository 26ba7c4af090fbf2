"""The text of `zenvoy explain`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from reconciler.cli.explanation import lines

NOW = datetime(2026, 1, 2, 3, 4, 15, tzinfo=UTC)
AT = "2026-01-02T03:04:05.000+00:00"


def answer(**changes: Any) -> dict[str, Any]:
    service = {
        "name": "shop/web",
        "state": "Draining",
        "since": AT,
        "reason": "idle for all of idleAfter",
        "stalled": None,
        "paused": False,
        "target": "Deployment/web",
        "replicas": 3,
        "endpoints": ["10.0.0.1:80"],
        "diagnosis": None,
        "holdAddress": "127.64.0.7:18001",
        "deadline": {"at": "2026-01-02T03:04:35.000+00:00", "event": "DrainTimedOut"},
        "lastWake": None,
        "held": 0,
        "relayed": 1,
        "route": {"to": ["127.64.0.7:18001"], "ackedAt": None, "waitingFor": "Envoy edge"},
        "conditions": [{"type": "Ready", "status": "False", "reason": "Draining", "message": "", "since": AT}],
    }
    counters = {"requests": 17, "connections": 3, "bytes": 900, "active_requests": 1, "active_connections": 2}
    holder = {"id": "h-1", "mode": "anyip", "connected": True, "inForce": True, "held": 0, "relayed": 1}
    whole = {
        "service": service | changes.pop("service", {}),
        "drainBlocker": "the route is not acknowledged: Envoy edge",
        "drainBlockerReason": "RouteNotAcknowledged",
        "leader": {"pod": "zenvoy-0", "renewedAt": AT, "leaseSeconds": 15, "changes": 2},
        "judged": {"usage": "quiet", "reason": "0 requests moved, 0 in flight"},
        "sample": {
            "source": "Envoys' statistics",
            "ageSeconds": 1.25,
            "unknown": None,
            "envoys": [
                {"id": "edge-1", "uptimeSeconds": 3600, "counters": counters},
                {"id": "edge-2", "missing": "it does not answer"},
            ],
        },
        "envoys": {
            "version": "b8",
            "each": [
                {"id": "edge-1", "acked": "b8", "ackedAt": AT},
                {"id": "edge-2", "acked": "a7", "ackedAt": None},
                {"id": "edge-3", "acked": None, "ackedAt": None},
            ],
        },
        "holders": [{**holder, "released": 4, "refused": 0, "gone": 1}],
        "standing": None,
        "transitions": [
            {"at": AT, "from": "Idle", "event": "IdleElapsed", "to": "Draining", "reason": "idle for all of idleAfter"}
        ],
    }
    return whole | changes


def explained(**changes: Any) -> str:
    return "\n".join(lines(answer(**changes), NOW))


def test_explanation_complete_answer_shows_everything() -> None:
    assert (
        explained()
        == f"""\
shop/web is Draining since {AT} (10 s): idle for all of idleAfter
  target        Deployment/web
  replicas      3
  endpoints     10.0.0.1:80
  hold address  127.64.0.7:18001
  next          drain times out in 20 s; drain blocker: RouteNotAcknowledged: the route is not acknowledged: Envoy edge
  last wake     none since the controller started
  leader        zenvoy-0 (Lease renewed at {AT})

Traffic, by Envoys' statistics (1.25 s old): quiet, 0 requests moved, 0 in flight
  ENVOY   REQUESTS                     IN FLIGHT  CONNECTIONS  OPEN  BYTES  UP
  edge-1  17                           1          3            2     900    1h0m
  edge-2  missing: it does not answer

Route to 127.64.0.7:18001, version b8: not acknowledged by all: Envoy edge
  ENVOY   ACKNOWLEDGED  SINCE
  edge-1  b8            {AT}
  edge-2  a7            not the current version
  edge-3  disconnected  not the current version

Connections in holders: 0 held, 1 relayed
  HOLDER  MODE   HELD  RELAYED  RELEASED  REFUSED  GONE  ORDER
  h-1     anyip  0     1        4         0        1     applied

Conditions
  Ready  False  Draining

Last transitions
  {AT}  Idle → Draining  IdleElapsed  idle for all of idleAfter"""
    )


def test_explanation_of_replica_shows_its_role() -> None:
    standing = {"replica": "zenvoy-1", "leads": False, "leader": "zenvoy-0", "connected": [], "unknown": None}
    assert "answered by   zenvoy-1, a follower of zenvoy-0\n" in explained(standing=standing)
    leads = {**standing, "leads": True, "connected": ["10.0.0.2"], "unknown": "replica 10.0.0.3 is not connected"}
    words = "the leader; connected: 10.0.0.2; no service sleeps: replica 10.0.0.3 is not connected"
    assert words in explained(standing=leads)


def test_explanation_unknown_usage_is_shown() -> None:
    sample: dict[str, object] = {
        "source": "Prometheus at http://p",
        "ageSeconds": None,
        "unknown": "no Envoy is connected",
        "envoys": [],
    }
    text = explained(
        sample=sample, judged=None, holders=[], service={"held": None, "stalled": "no image", "paused": True}
    )
    assert "Traffic, by Prometheus at http://p (no sample yet): none" in text
    assert "usage is unknown, so no service sleeps: no Envoy is connected" in text
    assert "Connections in holders: unknown, because a holder is disconnected\n  none connected" in text
    assert "stalled       no image" in text and "until `zenvoy resume`" in text


def test_explanation_of_object_alone_repeats_nothing() -> None:
    stalled = {"type": "Ready", "status": "False", "reason": "NoPods", "message": "NoPods: quota", "since": AT}
    event = {"at": AT, "from": None, "to": None, "event": "WakeStalled", "reason": "NoPods: quota"}
    shown = explained(service={"conditions": [stalled]}, transitions=[event])
    assert "  Ready  False  NoPods: quota\n" in shown
    assert f"  {AT}  WakeStalled  NoPods: quota" in shown
