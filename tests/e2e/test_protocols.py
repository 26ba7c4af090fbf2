"""Each protocol is answered in full on a wake, byte for byte."""

from __future__ import annotations

from tests.e2e.conftest import Start
from tests.e2e.harness import SLOW_TO_SLEEP, request, server

WAKE_PARTS = ["signal", "started", "reachable", "firstByte"]


def test_http(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": server("http_echo")}, defaults=SLOW_TO_SLEEP)
    z.asleep("web")
    assert request(z.http_port, "web").body == b"hello from web: /\n"
    z.wait_status("its wake is whole", "web", lambda view: list(view["lastWake"]["parts"]) == WAKE_PARTS)
    z.sleep("web")
    z.asleep("web")
    assert request(z.http_port, "web").body == b"hello from web: /\n"
    assert z.wakes("web") == 2
    assert z.stop() == 0
    assert not z.leftovers()
