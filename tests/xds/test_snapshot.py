"""Snapshots: problems are reported at once and change nothing; versions follow the content."""

from __future__ import annotations

import re

import pytest

from tests.xds.client import HELD, LISTEN, PODS, http, tcp, world
from xds import ir
from xds.names import CDS, EDS, LDS, ORDER, RDS
from xds.resources.snapshot import Change, Snapshot
from xds.resources.validation import faults


def routed(of: Snapshot) -> set[str]:
    """Return the services that a virtual host leads to."""
    return {name for name, parts in of.selection.served.items() if parts.virtual_host}


def versions(of: Snapshot) -> list[str]:
    return [of.table(type_url).version for type_url in ORDER]


WRONG = {
    ir.Upstream("bad name", ir.ServiceProtocol.HTTP, ("x.localhost:80",)): (
        "service 'bad name': not a valid name; use letters",
        "'x.localhost:80' is not a host name",
    ),
    ir.Upstream("db", ir.ServiceProtocol.TCP): ("a tcp service requires a listen address",),
    ir.Upstream("db2", ir.ServiceProtocol.TCP, listen=ir.SocketAddress("localhost", 0)): (
        "'localhost' is not an IP address",
        "0 is not a port",
    ),
    ir.Upstream("mapped", ir.ServiceProtocol.TCP, listen=ir.SocketAddress("::ffff:127.0.0.1", 1)): (
        "IPv4 address in IPv6 notation; use 127.0.0.1",
    ),
    ir.Upstream("taken", ir.ServiceProtocol.TCP, listen=ir.SocketAddress("127.0.0.1", 10000)): (
        "the address 127.0.0.1:10000 belongs to listen.http",
    ),
    ir.Upstream("rival", ir.ServiceProtocol.H2C, ("A.localhost",)): (
        "the host name 'A.localhost' belongs to service a",
    ),
    ir.Upstream("nameless", ir.ServiceProtocol.HTTP): ("no host name; add one",),
    ir.Upstream("pattern", ir.ServiceProtocol.HTTP, ("a.*.b",)): ("'a.*.b' is not a host name",),
    ir.Upstream("closed", ir.ServiceProtocol.TLS, ("t.localhost",)): ("no listener for tls; set listen.tls",),
    ir.Upstream("listening", ir.ServiceProtocol.TLS, ("l.localhost",), ir.SocketAddress("127.0.0.1", 1)): (
        "listen is not available for tls",
    ),
    ir.Upstream("beside", ir.ServiceProtocol.HTTP, ("i.localhost",), ir.SocketAddress("127.0.0.1", 10000)): (
        "the address 127.0.0.1:10000 belongs to listen.http",
    ),
    ir.Upstream("between", ir.ServiceProtocol.HTTP, ("a.localhost",), ir.SocketAddress("127.0.0.1", 2)): (
        "the host name 'a.localhost' belongs to service a",
    ),
    ir.Upstream("long", ir.ServiceProtocol.HTTP, ("o.localhost",), ignore=(ir.IgnoreMatch(("/",), body="x" * 4097),)): (
        "the body of an answer is too long; use at most 4096 bytes",
    ),
    ir.Upstream("agent", ir.ServiceProtocol.HTTP, ("u.localhost",), ignore=(ir.IgnoreMatch(user_agents=("",)),)): (
        "the user agent '' matches every request",
    ),
    ir.Upstream("odd", ir.ServiceProtocol.HTTP, ("s.localhost",), ignore=(ir.IgnoreMatch(("/\ud800",)),)): (
        "cannot be encoded for Envoy",
    ),
}


def test_snapshot_invalid_services_are_left_out_others_served() -> None:
    made = Snapshot()
    listen = ir.Listen(http=LISTEN.http)
    made.configure(listen, [http("a"), *WRONG, http("b")])
    for service, texts in WRONG.items():
        assert all(text in made.selection.faults[service.name] for text in texts), made.selection.faults[service.name]
    assert len(made.selection.faults) == len(WRONG)
    assert routed(made) == {"a", "b"}
    assert {"a", "b", "db", "rival"} <= set(made.table(CDS)), "what is left out keeps its endpoints"
    assert "bad name" not in made.table(CDS)
    made.route("rival", PODS)
    made.route("bad name", PODS)
    assert made.table(EDS).get("rival") and made.table(EDS).get("bad name") is None


def test_snapshot_invalid_service_keeps_its_last_version() -> None:
    made = world(http("a"), http("b"))
    before = versions(made)
    made.configure(LISTEN, [http("a"), ir.Upstream("b", ir.ServiceProtocol.HTTP, ("b:80",))])
    assert list(made.selection.faults) == ["b"]
    assert versions(made) == before
    made.configure(LISTEN, [http("a"), ir.Upstream("b", ir.ServiceProtocol.HTTP, ("c.localhost",))])
    assert made.selection.faults == {}
    assert versions(made) != before


def test_snapshot_kept_version_yields_to_a_valid_service() -> None:
    made = world(http("a"), http("b"))
    wrong = ir.Upstream("b", ir.ServiceProtocol.HTTP, ("b:80",))
    made.configure(LISTEN, [wrong, ir.Upstream("c", ir.ServiceProtocol.HTTP, ("b.localhost",))])
    assert list(made.selection.faults) == ["b"]
    assert routed(made) == {"c"}


def test_snapshot_invalid_configuration_changes_nothing() -> None:
    made = world(http("a"))
    before = versions(made)
    for listen, services, words in (
        (ir.Listen(http=ir.SocketAddress("nowhere", 0)), [http("a")], "listen.http: 'nowhere' is not an IP address"),
        (ir.Listen(LISTEN.http, LISTEN.http), [http("a")], "listen.tls: the address 127.0.0.1:10000 belongs to"),
        (LISTEN, [http("a"), http("a")], "service a: duplicate name"),
    ):
        with pytest.raises(ValueError, match=words):
            made.configure(listen, services)
        assert versions(made) == before


def test_snapshot_equal_configuration_is_not_a_change() -> None:
    made = world(http("a"), tcp("b", 1))
    before = versions(made)
    assert made.configure(LISTEN, [http("a"), tcp("b", 1)]) == Change({}, {})
    assert versions(made) == before


def test_snapshot_valid_service_is_checked_against_changes() -> None:
    made = world(http("a"))
    rival = ir.Upstream("rival", ir.ServiceProtocol.HTTP, ("A.localhost",))
    made.configure(LISTEN, [http("a"), rival])
    assert made.selection.faults == {"rival": "the host name 'A.localhost' belongs to service a; use another"}
    made.configure(LISTEN, [rival, http("a")])
    assert made.selection.faults == {"a": "the host name 'a.localhost' belongs to service rival; use another"}
    made.configure(ir.Listen(tls=LISTEN.tls), [http("a")])
    assert made.selection.faults == {"a": "no listener for http; set listen.http"}


@pytest.mark.parametrize("good", [0, 1])
def test_validation_known_valid_service_is_not_rechecked(good: int) -> None:
    bad = ir.Upstream("bad", ir.ServiceProtocol.HTTP, ("x:80",))
    assert len(faults(LISTEN, [bad], lambda _: bool(good))) == 1 - good


def test_validation_http_and_tls_may_share_a_host_name() -> None:
    made = Snapshot()
    tls = ir.Upstream("tls", ir.ServiceProtocol.TLS, ("a.localhost",))
    made.configure(LISTEN, [http("a"), tls])
    assert set(made.table(CDS)) == {"a", "tls"}


def test_snapshot_endpoints_of_unknown_service_are_refused() -> None:
    made = world(http("a"))
    with pytest.raises(ValueError, match="no service 'b' is configured"):
        made.route("b", HELD)
    for host in ("pod", "[::1]", "::1]", "fe80::1%eth0"):
        with pytest.raises(ValueError, match=re.escape(f"{host!r} is not an IP address")):
            made.route("a", (ir.SocketAddress(host, 80),))


def test_snapshot_equal_content_has_equal_versions() -> None:
    one, two = world(http("a"), tcp("b", 1)), world(tcp("b", 1), http("a"))
    one.route("a", PODS)
    one.route("a", HELD)
    two.configure(LISTEN, [http("a"), tcp("b", 1), http("c")])
    two.route("c", HELD)
    two.configure(LISTEN, [http("a"), tcp("b", 1)])
    assert versions(one) == versions(two)


def test_snapshot_configured_again_changes_nothing() -> None:
    made = world(http("a"), tcp("b", 1))
    change = made.configure(LISTEN, [http("a"), tcp("b", 1)])
    assert not any(change.changed.values()) and not any(change.removed.values())


def test_snapshot_wake_changes_endpoints_only() -> None:
    made = world(http("a"), tcp("b", 1))
    before = versions(made)
    assert made.route("a", PODS)
    assert [old == new for old, new in zip(before, versions(made), strict=True)] == [True, False, True, True]
    assert ORDER == (CDS, EDS, LDS, RDS)


def test_snapshot_changed_service_keeps_its_endpoints() -> None:
    made = world(http("a"), http("b"))
    made.configure(LISTEN, [ir.Upstream("a", ir.ServiceProtocol.H2C, ("a.localhost",))])
    assert made.table(EDS).get("a") and made.table(EDS).get("b") is None
