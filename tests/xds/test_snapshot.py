"""What is wrong is said at once and changes nothing; versions follow the content."""

from __future__ import annotations

import pytest

from tests.xds.client import HELD, LISTEN, PODS, http, tcp, world
from xds import ir
from xds.check import problems
from xds.snapshot import Change, World, inconsistencies
from xds.translate import Translation
from xds.types import CDS, EDS, LDS, ORDER, RDS


def versions(of: World) -> list[str]:
    return [of.table(type_url).version for type_url in ORDER]


def test_all_problems_are_reported_together_and_nothing_changes() -> None:
    made = world(http("a"))
    before = versions(made)
    wrong = [
        http("a"),
        http("a"),
        ir.Service("bad name", ir.Protocol.HTTP, ("x.localhost:80",)),
        ir.Service("db", ir.Protocol.TCP),
        ir.Service("db2", ir.Protocol.TCP, listen=ir.Address("localhost", 0)),
        ir.Service("taken", ir.Protocol.TCP, listen=ir.Address("127.0.0.1", 10000)),
        ir.Service("rival", ir.Protocol.H2C, ("A.localhost",)),
        ir.Service("nameless", ir.Protocol.TLS),
        ir.Service("pattern", ir.Protocol.TLS, ("a.*",)),
        ir.Service("listening", ir.Protocol.HTTP, ("l.localhost",), ir.Address("127.0.0.1", 1)),
    ]
    with pytest.raises(ValueError, match="given twice") as caught:
        made.configure(ir.Listen(http=LISTEN.http), wrong)
    told = str(caught.value)
    for expected in (
        "service a: the name is given twice",
        "service 'bad name': a name is letters",
        "'x.localhost:80' is not a host name",
        "service db: a tcp service needs an address",
        "service db2: 'localhost' is not an IP address",
        "service db2: 0 is not a port",
        "service taken: the address 127.0.0.1:10000 is already that of listen.http",
        "service rival: the host name 'A.localhost' is already that of service a",
        "service nameless: it has no host name",
        "service nameless: there is no listen.tls for tls services",
        "service pattern: 'a.*' is not a host name",
        "service listening: only a tcp service has an address of its own",
    ):
        assert expected in told
    assert versions(made) == before


def test_the_same_again_is_no_change_and_looks_at_no_service() -> None:
    made = world(http("a"), tcp("b", 1))
    before = versions(made)
    assert made.configure(LISTEN, [http("a"), tcp("b", 1)]) == Change({}, {})
    assert versions(made) == before


def test_a_service_that_was_good_is_checked_again_where_others_or_listeners_change() -> None:
    made = world(http("a"))
    rival = ir.Service("rival", ir.Protocol.HTTP, ("A.localhost",))
    with pytest.raises(ValueError, match=r"service rival: the host name 'A.localhost' is already that of service a"):
        made.configure(LISTEN, [http("a"), rival])
    with pytest.raises(ValueError, match=r"service a: the host name 'a.localhost' is already that of service rival"):
        made.configure(LISTEN, [rival, http("a")])
    with pytest.raises(ValueError, match=r"service a: there is no listen\.http"):
        made.configure(ir.Listen(tls=LISTEN.tls), [http("a")])


@pytest.mark.parametrize("good", [0, 1])
def test_what_is_good_alone_is_not_looked_at_alone(good: int) -> None:
    bad = ir.Service("bad", ir.Protocol.HTTP, ("x:80",))
    assert len(problems(LISTEN, [bad], lambda _: bool(good))) == 1 - good


def test_an_http_and_a_tls_service_may_share_a_host_name() -> None:
    made = World()
    tls = ir.Service("tls", ir.Protocol.TLS, ("a.localhost",))
    made.configure(LISTEN, [http("a"), tls])
    assert set(made.table(CDS)) == {"a", "tls"}


def test_endpoints_must_be_addresses_of_a_known_service() -> None:
    made = world(http("a"))
    with pytest.raises(ValueError, match="no service 'b' is configured"):
        made.route("b", HELD)
    with pytest.raises(ValueError, match="'pod' is not an IP address"):
        made.route("a", (ir.Address("pod", 80),))


def test_versions_are_those_of_the_content_in_every_replica() -> None:
    one, two = world(http("a"), tcp("b", 1)), world(tcp("b", 1), http("a"))
    one.route("a", PODS)
    one.route("a", HELD)
    two.configure(LISTEN, [http("a"), tcp("b", 1), http("c")])
    two.route("c", HELD)
    two.configure(LISTEN, [http("a"), tcp("b", 1)])
    assert versions(one) == versions(two)


def test_configuring_the_same_again_changes_nothing() -> None:
    made = world(http("a"), tcp("b", 1))
    change = made.configure(LISTEN, [http("a"), tcp("b", 1)])
    assert not any(change.changed.values()) and not any(change.removed.values())


def test_waking_touches_endpoints_only() -> None:
    made = world(http("a"), tcp("b", 1))
    before = versions(made)
    assert made.route("a", PODS)
    assert [old == new for old, new in zip(before, versions(made), strict=True)] == [True, False, True, True]
    assert ORDER == (CDS, EDS, LDS, RDS)


def test_a_changed_service_keeps_its_endpoints_and_a_removed_one_does_not() -> None:
    made = world(http("a"), http("b"))
    made.configure(LISTEN, [ir.Service("a", ir.Protocol.H2C, ("a.localhost",))])
    assert made.table(EDS).get("a") and made.table(EDS).get("b") is None


def test_a_name_that_leads_nowhere_is_found() -> None:
    whole = Translation({CDS: {}, LDS: {}, RDS: {}}, frozenset({"gone"}), frozenset({"http"}))
    assert len(inconsistencies(whole)) == 2
