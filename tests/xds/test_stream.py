"""Conversations that go the same way in both protocols."""

from __future__ import annotations

import pytest

from tests.xds.client import HELD, LISTEN, PODS, Client, DeltaClient, SotwClient, http, tcp, world
from xds import ir
from xds.ads.stream import Nack
from xds.names import CDS, EDS, LDS, RDS

both = pytest.mark.parametrize("kind", [DeltaClient, SotwClient])
Kind = type[DeltaClient] | type[SotwClient]


def said(client: Client) -> list[str]:
    return [str(answer) for answer in client.hears()]


def configure(client: Client, *services: ir.Upstream) -> None:
    client.stream.change(client.world.configure(LISTEN, services))


def route(client: Client, service: str, endpoints: tuple[ir.SocketAddress, ...]) -> None:
    if client.world.route(service, endpoints):
        client.stream.route(service)


def acked(client: Client, service: str) -> float | None:
    return client.stream.types[EDS].acked_at(service)


@both
def test_stream_first_connection_gets_every_resource_once(kind: Kind) -> None:
    client = kind(world(http("a"), tcp("b", 5432)))
    heard = client.joins(endpoints=("a", "b"))
    assert heard == ["CDS a b", "EDS a b", "LDS http tcp/127.0.0.1:5432", "RDS http"]
    assert said(client) == []


@both
def test_stream_empty_snapshot_is_answered(kind: Kind) -> None:
    client = kind(world())
    assert [str(answer) for answer in client.asks(CDS)] == ["CDS"]


@both
def test_stream_wake_sends_one_service_endpoints_only(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    route(client, "a", PODS)
    assert said(client) == ["EDS a"]


@both
def test_stream_reordered_endpoints_send_nothing(kind: Kind) -> None:
    client = kind(world(http("a")))
    client.joins(endpoints=("a",))
    route(client, "a", PODS)
    client.settles()
    route(client, "a", PODS[::-1])
    assert said(client) == []
    assert acked(client, "a")


@both
def test_stream_service_without_endpoints_delays_only_itself(kind: Kind) -> None:
    made = world(http("a"))
    made.configure(LISTEN, [http("a"), http("new")])
    client = kind(made)
    assert "EDS a" in client.joins(endpoints=("a", "new"))
    route(client, "new", HELD)
    assert said(client) == ["EDS new"]


@both
def test_stream_overlapping_changes_acked_by_the_last_only(kind: Kind) -> None:
    """Held, then pods, then held again: the first acknowledgement of `held` must not count for the second."""
    client = kind(world(http("a")))
    client.joins(endpoints=("a",))
    assert acked(client, "a")
    route(client, "a", PODS)
    [pods] = client.hears()
    route(client, "a", HELD)
    [held] = client.hears()
    assert acked(client, "a") is None
    client.answers(pods)
    assert acked(client, "a") is None
    assert client.answers(held).acked == ("a",)
    assert acked(client, "a") == client.now


@both
def test_stream_unsent_change_costs_nothing(kind: Kind) -> None:
    client = kind(world(http("a")))
    client.joins(endpoints=("a",))
    route(client, "a", PODS)
    route(client, "a", HELD)
    assert said(client) == []
    assert acked(client, "a")


@both
def test_stream_nack_is_reported_and_not_sent_again(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    route(client, "a", PODS)
    [answer] = client.hears()
    nack = client.answers(answer, "malformed IP address: x").nack
    assert nack is not None
    assert (nack.message, nack.at) == ("malformed IP address: x", client.now)
    assert client.stream.nacks == {EDS: nack}
    assert client.stream.types[EDS].rejections.keys() == {"a"}
    assert said(client) == []
    assert acked(client, "a") is None
    route(client, "b", PODS)
    assert client.settles() == ["EDS b"]
    route(client, "a", HELD)
    assert client.settles() == ["EDS a"]
    assert acked(client, "a")


@both
def test_stream_nack_stands_until_another_version_is_acked(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    route(client, "a", PODS)
    [answer] = client.hears()
    nack = client.answers(answer, "no").nack
    route(client, "b", PODS)
    client.settles()
    assert client.stream.nacks == {EDS: nack}
    route(client, "a", HELD)
    assert client.stream.nacks == {EDS: nack}
    client.settles()
    assert client.stream.nacks == {}


def rejecting(kind: Kind, services: tuple[str, ...], words: str) -> tuple[Client, Nack]:
    """One that rejects the pods of these services, which came in one answer."""
    client = kind(world(*map(http, services)))
    client.joins(endpoints=services)
    for name in services:
        route(client, name, PODS)
    [answer] = client.hears()
    nack = client.answers(answer, words).nack
    assert nack
    return client, nack


@both
def test_nack_of_longer_name_does_not_blame_contained_name(kind: Kind) -> None:
    client, nack = rejecting(kind, ("web", "web-admin"), "Error updating endpoints of web-admin: bad")
    assert client.stream.nacks == {EDS: nack}
    assert client.stream.types[EDS].rejections.keys() == {"web-admin"}
    route(client, "web-admin", HELD)
    client.settles()
    assert client.stream.nacks == {}


@both
def test_nack_without_name_ends_when_any_resource_is_acked(kind: Kind) -> None:
    client, nack = rejecting(kind, ("a-1", "b-1"), "no")
    assert client.stream.nacks == {EDS: nack}
    assert not client.stream.types[EDS].rejections
    route(client, "b-1", HELD)
    client.settles()
    assert client.stream.nacks == {}


@both
def test_stream_nack_ends_when_its_resource_is_removed(kind: Kind) -> None:
    client = kind(world(tcp("a", 1)))
    client.joins(endpoints=("a",))
    configure(client, tcp("a", 1), tcp("b", 2))
    while answers := client.hears():
        for answer in answers:
            client.answers(answer, "cannot bind tcp/127.0.0.1:2" if answer.type_url == LDS else None)
    assert list(client.stream.nacks) == [LDS]
    configure(client, tcp("a", 1))
    client.settles()
    assert client.stream.nacks == {}


@both
def test_stream_nack_of_many_blames_the_named_ones(kind: Kind) -> None:
    client = kind(world(tcp("a", 1), tcp("b", 2)))
    client.asks(CDS)
    [answer] = client.asks(LDS)
    client.answers(answer, "Error adding/updating listener(s) tcp/127.0.0.1:2: cannot bind 127.0.0.1:2")
    assert client.stream.nacks.keys() == {LDS}
    assert client.stream.types[LDS].rejections.keys() == {"tcp/127.0.0.1:2"}


@both
def test_stream_unknown_nonce_has_no_effect(kind: Kind) -> None:
    client = kind(world(http("a")))
    client.joins(endpoints=("a",))
    route(client, "a", PODS)
    [answer] = client.hears()
    assert client.answers(answer, nonce="999").acked == ()
    assert client.answers(answer, "no", nonce="999").nack is None
    assert acked(client, "a") is None
    assert client.answers(answer).acked == ("a",)


@both
def test_stream_partial_subscription_gets_only_that(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("b",))
    route(client, "a", PODS)
    assert said(client) == []
    assert acked(client, "a") is None
    route(client, "b", PODS)
    assert said(client) == ["EDS b"]


@both
def test_stream_unsubscribed_endpoints_are_not_sent_or_acked(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    drop(client, EDS, "a", keep=("b",))
    assert acked(client, "a") is None
    route(client, "a", PODS)
    assert said(client) == []


@both
def test_stream_repeated_subscription_is_sent_again(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    drop(client, EDS, "a", keep=("b",))
    heard = client.asks(EDS, "a") if isinstance(client, DeltaClient) else client.asks(EDS, "a", "b")
    assert [str(answer) for answer in heard] == ["EDS a"]


@both
def test_stream_unknown_type_is_ignored(kind: Kind) -> None:
    client = kind(world(http("a")))
    assert client.asks("type.googleapis.com/envoy.service.runtime.v3.Runtime", "rtds") == []
    assert client.joins(endpoints=("a",))


@both
def test_stream_new_service_makes_before_it_breaks(kind: Kind) -> None:
    """The route to a cluster is not sent before Envoy has the cluster and its endpoints."""
    client = kind(world(http("a")))
    client.joins(endpoints=("a",))
    configure(client, http("a"), http("new"))
    route(client, "new", HELD)
    [clusters] = client.hears()
    assert clusters.type_url == CDS and "new" in clusters.names
    # Envoy asks for the new cluster's endpoints before it acknowledges the cluster.
    [endpoints] = client.asks(EDS, "new") if isinstance(client, DeltaClient) else client.asks(EDS, "a", "new")
    client.answers(clusters)
    assert said(client) == []
    client.answers(endpoints)
    assert said(client) == ["RDS http"]


@both
def test_stream_removed_service_goes_after_its_routes(kind: Kind) -> None:
    client = kind(world(http("a"), http("old")))
    client.joins(endpoints=("a", "old"))
    configure(client, http("a"))
    [routes] = client.hears()
    assert routes.type_url == RDS
    client.answers(routes)
    heard = said(client)
    assert heard[0] == ("CDS -old" if kind is DeltaClient else "CDS a")


@both
def test_stream_removed_service_stays_while_routes_are_rejected(kind: Kind) -> None:
    client = kind(world(http("a"), http("old")))
    client.joins(endpoints=("a", "old"))
    configure(client, http("a"))
    [routes] = client.hears()
    client.answers(routes, "no")
    assert said(client) == []
    configure(client, http("a"), http("c"))
    heard = client.settles()
    assert heard[0] == ("CDS c" if kind is DeltaClient else "CDS a c old")
    assert ("CDS -old" if kind is DeltaClient else "CDS a c") in heard


@both
def test_stream_removed_and_added_unsent_is_not_removed(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    configure(client, http("a"))
    configure(client, http("a"), http("b"))
    route(client, "b", HELD)
    assert client.settles() == []


@both
def test_stream_removed_and_added_again_is_sent_again(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    configure(client, http("a"))
    client.settles()
    drop(client, EDS, "b", keep=("a",))
    client.settles()
    configure(client, http("a"), http("b"))
    route(client, "b", HELD)
    [clusters] = client.hears()
    assert "b" in clusters.names
    heard = client.asks(EDS, "b") if isinstance(client, DeltaClient) else client.asks(EDS, "a", "b")
    assert [str(answer) for answer in heard] == ["EDS b"]


@both
def test_stream_changed_cluster_is_followed_by_endpoints(kind: Kind) -> None:
    """Envoy warms the new cluster until it gets endpoints, and does not ask: it had subscribed to them."""
    client = kind(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    configure(client, ir.Upstream("a", ir.ServiceProtocol.H2C, ("a.localhost",)), http("b"))
    heard = said(client)
    assert heard == [("CDS a" if kind is DeltaClient else "CDS a b"), "EDS a"]
    assert acked(client, "a") is None


@both
def test_stream_listeners_change_in_one_response(kind: Kind) -> None:
    client = kind(world(tcp("a", 5432), http("b")))
    client.joins(endpoints=("a", "b"))
    configure(client, tcp("c", 5433), http("b"))
    route(client, "c", HELD)
    heard = client.settles()
    new, old = "tcp/127.0.0.1:5433", "tcp/127.0.0.1:5432"
    assert (f"LDS {new} -{old}" if kind is DeltaClient else f"LDS http {new}") in heard


@both
def test_stream_named_clusters_gets_only_those(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    [answer] = client.asks(CDS, "a")
    assert str(answer) == "CDS a"
    client.answers(answer)
    configure(client, http("a"), http("b"), http("c"))
    assert said(client) == []


@both
def test_delta_wildcard_dropped_keeps_the_name(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    [answer] = client.asks(CDS, "*", "a")
    assert str(answer) == "CDS a b"
    client.answers(answer)
    drop(client, CDS, "*", keep=("a",))
    configure(client, http("a"), http("b"), http("c"))
    assert said(client) == []


@both
def test_sotw_no_names_after_names_is_not_a_wildcard(kind: Kind) -> None:
    client = kind(world(http("a"), http("b")))
    [answer] = client.asks(CDS, "a")
    client.answers(answer)
    drop(client, CDS, "a", keep=())
    configure(client, ir.Upstream("a", ir.ServiceProtocol.H2C, ("a.localhost",)), http("b"), http("c"))
    assert said(client) == []


def drop(client: Client, type_url: str, name: str, *, keep: tuple[str, ...]) -> None:
    if isinstance(client, DeltaClient):
        client.asks(type_url, drops=(name,))
    else:
        client.asks(type_url, *keep)


def test_delta_reconnect_at_equal_versions_sends_nothing() -> None:
    made = world(http("a"), tcp("b", 5432))
    before = DeltaClient(made)
    before.joins(endpoints=("a", "b"))
    have = {type_url: dict(before.stream.types[type_url].sent) for type_url in (CDS, EDS, LDS, RDS)}
    again = DeltaClient(made)
    assert again.asks(CDS, has=have[CDS]) == []
    assert again.asks(EDS, "a", "b", has=have[EDS]) == []
    assert sorted(again.receipt.acked) == ["a", "b"]
    assert again.asks(LDS, has=have[LDS]) == []
    assert again.asks(RDS, "http", has=have[RDS]) == []
    assert acked(again, "a") == again.now


def test_sotw_reconnect_at_equal_versions_gets_them_once() -> None:
    """Requests of this protocol do not say what each resource is that they have: only an answer can settle it."""
    made = world(http("a"), tcp("b", 5432))
    before = SotwClient(made)
    before.joins(endpoints=("a", "b"))
    again = SotwClient(made)
    again.versions = dict(before.versions)
    assert again.joins(endpoints=("a", "b")) == ["CDS a b", "EDS a b", "LDS http tcp/127.0.0.1:5432", "RDS http"]
    for type_url, answer in again.last.items():
        last = before.last[type_url]
        assert (answer.version, answer.versions) == (last.version, last.versions)
    assert said(again) == []
    assert acked(again, "a") and acked(again, "b")
    assert again.stream.nacks == {}


def test_delta_reconnect_gets_changes_and_removals() -> None:
    made = world(http("a"), http("old"))
    before = DeltaClient(made)
    before.joins(endpoints=("a", "old"))
    have = {type_url: dict(before.stream.types[type_url].sent) for type_url in (CDS, EDS, LDS, RDS)}
    made.configure(LISTEN, [http("a"), http("c")])
    made.route("a", PODS)
    made.route("c", HELD)
    again = DeltaClient(made)
    came = [*again.asks(CDS, has=have[CDS])]
    assert [str(answer) for answer in came] == ["CDS c"]
    came += again.asks(EDS, "a", "old", "c", has=have[EDS])
    came += again.asks(LDS, has=have[LDS])
    came += again.asks(RDS, "http", has=have[RDS])
    for answer in came:
        again.answers(answer)
    assert [*map(str, came), *again.settles()] == ["CDS c", "EDS a c", "RDS http", "CDS -old", "EDS -old"]


def test_delta_endpoints_of_unknown_service_are_removed() -> None:
    client = DeltaClient(world(http("a")))
    assert [str(answer) for answer in client.asks(EDS, "a", "missing")] == ["EDS a -missing"]


def test_delta_repeated_subscription_is_sent_again() -> None:
    client = DeltaClient(world(http("a")))
    client.joins(endpoints=("a",))
    assert [str(answer) for answer in client.asks(EDS, "a")] == ["EDS a"]


def test_delta_name_after_implicit_wildcard_keeps_wildcard() -> None:
    client = DeltaClient(world(http("a")))
    client.asks(CDS)
    client.asks(CDS, "a")
    configure(client, http("a"), http("b"))
    client.settles()
    assert set(client.stream.types[CDS].sent) == {"a", "b"}


def test_delta_unsubscribe_under_wildcard_is_answered() -> None:
    client = DeltaClient(world(http("a")))
    client.asks(CDS, "*", "a", "gone")
    assert [str(answer) for answer in client.asks(CDS, drops=("a", "gone"))] == ["CDS a -gone"]


def test_sotw_stale_nonce_keeps_the_subscription() -> None:
    client = SotwClient(world(http("a"), http("b")))
    [first] = client.asks(EDS, "a")
    route(client, "a", PODS)
    client.hears()
    assert client.asks(EDS, "a", "b", nonce=first.nonce) == []
    [again] = [client.last[EDS]]
    client.answers(again)
    assert said(client) == ["EDS b"]


def test_sotw_one_request_answers_several_responses() -> None:
    """The first response may not have been applied: it is sent again and does not count as acknowledged."""
    client = SotwClient(world(http("a"), http("b")))
    client.joins(endpoints=("a", "b"))
    route(client, "a", PODS)
    client.hears()
    route(client, "b", PODS)
    [second] = client.hears()
    client.answers(second)
    assert acked(client, "b") and acked(client, "a") is None
    assert client.settles() == ["EDS a"]
    assert acked(client, "a")


def test_sotw_name_given_ends_the_implicit_wildcard() -> None:
    client = SotwClient(world(http("a"), http("b")))
    [answer] = client.asks(CDS)
    client.answers(answer)
    client.asks(CDS, "a")
    configure(client, http("a"), http("b"), http("c"))
    assert said(client) == []


def test_delta_client_names_are_not_copied() -> None:
    client = DeltaClient(world(http("a-service")))
    client.joins(endpoints=("a-service",))
    endpoints = client.stream.types[EDS]
    own = next(iter(endpoints.table))
    assert [name is own for name in endpoints.names] == [True]
    assert endpoints.inflight == {}


@both
def test_stream_nack_of_removed_resource_does_not_stand(kind: Kind) -> None:
    client = kind(world(http("a")))
    client.joins(endpoints=("a",))
    configure(client, http("a"), tcp("b", 1))
    route(client, "b", PODS)
    clusters = [answer for answer in client.hears() if answer.type_url == CDS]
    for answer in clusters:
        client.answers(answer)
    answers = client.asks(EDS, "a", "b")
    for answer in answers:
        client.answers(answer)
    [listeners] = [answer for answer in [*answers, *client.hears()] if answer.type_url == LDS]
    configure(client, http("a"))
    later = client.hears()
    rejected = client.answers(listeners, "tcp/127.0.0.1:1: cannot bind")
    assert rejected.nack
    for answer in later:
        client.answers(answer)
    client.settles()
    assert not client.stream.nacks
    assert not any(sub.rejections for sub in client.stream.types.values())
