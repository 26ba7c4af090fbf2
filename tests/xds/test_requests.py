"""Requests are read as betterproto2 reads them."""

from __future__ import annotations

import betterproto2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.oracle import DeltaDiscoveryRequest, DiscoveryRequest, Status, core_v3
from xds.ads.codec import (
    MAX_ERROR_BYTES,
    MAX_NAME_BYTES,
    MAX_NAMES,
    MAX_WORD_BYTES,
    DeltaRequest,
    MalformedError,
    NodeId,
    SotwDecoder,
    SotwRequest,
    claimed_node_id,
    delta_request,
)
from xds.names import CDS, EDS
from xds.resources import proto

text = st.text(max_size=MAX_WORD_BYTES // 4)
some_names = st.lists(text, max_size=6)
nodes = st.none() | st.builds(
    lambda id_, cluster, build: core_v3.Node(id=id_, cluster=cluster, user_agent_name=build), text, text, text
)


def metadata(stats: str) -> dict[str, object]:
    return {"other": {"stats": "not this"}, "zenvoy": {"more": 1, "stats": stats}, "third": "words"}


errors = st.none() | st.builds(lambda code, message: Status(code=code, message=message), st.integers(0, 16), text)


def node_id(node: core_v3.Node | None) -> NodeId | None:
    return None if node is None else NodeId(node.id, node.cluster)


def error_message(status: Status | None) -> str | None:
    """Return the text of a rejection as it is kept: on one line, without control characters."""
    return None if status is None else "".join(char if char.isprintable() else " " for char in status.message)


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        DeltaDiscoveryRequest,
        node=nodes,
        type_url=text,
        resource_names_subscribe=some_names,
        resource_names_unsubscribe=some_names,
        initial_resource_versions=st.dictionaries(text, text, max_size=5),
        response_nonce=text,
        error_detail=errors,
    )
)
def test_delta_request_any_message_is_read_in_full(message: DeltaDiscoveryRequest) -> None:
    assert delta_request(bytes(message)) == DeltaRequest(
        type_url=message.type_url,
        nonce=message.response_nonce,
        node=node_id(message.node),
        error=error_message(message.error_detail),
        subscribe=message.resource_names_subscribe,
        unsubscribe=message.resource_names_unsubscribe,
        initial_versions=message.initial_resource_versions,
    )


@given(text)
def test_node_metadata_with_stats_address_is_read(stats: str) -> None:
    message = DeltaDiscoveryRequest(node=core_v3.Node.from_dict({"id": "a", "metadata": metadata(stats)}))
    assert delta_request(bytes(message)).node == NodeId("a", "", stats)


sotw_requests = st.builds(
    DiscoveryRequest,
    version_info=text,
    node=nodes,
    resource_names=some_names,
    type_url=st.sampled_from([CDS, EDS, "other"]),
    response_nonce=text,
    error_detail=errors,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(sotw_requests, min_size=1, max_size=4), st.booleans())
def test_sotw_decoder_any_conversation_is_read_in_full(conversation: list[DiscoveryRequest], grow: bool) -> None:
    decoder = SotwDecoder()
    names: list[str] = []
    for message in conversation:
        if grow:
            names = message.resource_names = [*names, *message.resource_names]
        assert decoder.decode(bytes(message)) == SotwRequest(
            type_url=message.type_url,
            nonce=message.response_nonce,
            node=node_id(message.node),
            error=error_message(message.error_detail),
            version=message.version_info,
            names=tuple(message.resource_names),
        )


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=64))
def test_requests_garbage_is_malformed_or_read(data: bytes) -> None:
    for decode in (delta_request, SotwDecoder().decode):
        try:
            decode(data)
        except MalformedError:
            pass


def varint_field(number: int, value: int) -> bytes:
    return b"".join(betterproto2.encode_varint(part) for part in (number << 3, value))


def test_requests_unknown_fields_are_skipped() -> None:
    later = b"".join(
        (varint_field(1000, 1 << 40), b"\x0d1234", b"\x0912345678", bytes(DeltaDiscoveryRequest(type_url="x")))
    )
    assert delta_request(later).type_url == "x"


@pytest.mark.parametrize("data", [b"\x12", b"\x12\x05ab", b"\x80" * 11, b"\x12\x01\xff", b"\x0d12", b"\x0b"])
def test_requests_truncated_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        delta_request(data)


LONG_WORD, LONG_NAME = "x" * (MAX_WORD_BYTES + 1), "x" * (MAX_NAME_BYTES + 1)


@pytest.mark.parametrize(
    "message",
    [
        DeltaDiscoveryRequest(node=core_v3.Node(id=LONG_WORD)),
        DeltaDiscoveryRequest(node=core_v3.Node(id="a", cluster=LONG_WORD)),
        DeltaDiscoveryRequest(type_url=LONG_WORD),
        DeltaDiscoveryRequest(response_nonce=LONG_WORD),
        DeltaDiscoveryRequest(resource_names_subscribe=[LONG_NAME]),
        DeltaDiscoveryRequest(resource_names_unsubscribe=[LONG_NAME]),
        DeltaDiscoveryRequest(initial_resource_versions={LONG_NAME: "1"}),
        DeltaDiscoveryRequest(initial_resource_versions={"a": LONG_WORD}),
        DeltaDiscoveryRequest(resource_names_subscribe=["x"] * (MAX_NAMES + 1)),
        DeltaDiscoveryRequest(resource_names_unsubscribe=["x"] * (MAX_NAMES + 1)),
        DeltaDiscoveryRequest(initial_resource_versions={str(n): "1" for n in range(MAX_NAMES + 1)}),
    ],
)
def test_delta_request_out_of_bounds_is_malformed(message: DeltaDiscoveryRequest) -> None:
    with pytest.raises(MalformedError, match="supported"):
        delta_request(bytes(message))


@pytest.mark.parametrize(
    "message",
    [
        DiscoveryRequest(node=core_v3.Node(id=LONG_WORD)),
        DiscoveryRequest(version_info=LONG_WORD),
        DiscoveryRequest(type_url=LONG_WORD),
        DiscoveryRequest(response_nonce=LONG_WORD),
        DiscoveryRequest(resource_names=[LONG_NAME]),
        DiscoveryRequest(resource_names=["x"] * (MAX_NAMES + 1)),
    ],
)
def test_sotw_request_out_of_bounds_is_malformed(message: DiscoveryRequest) -> None:
    with pytest.raises(MalformedError, match="supported"):
        SotwDecoder().decode(bytes(message))


def test_requests_long_rejection_is_truncated() -> None:
    message = DeltaDiscoveryRequest(error_detail=Status(code=13, message="x" * 5_000_000))
    assert delta_request(bytes(message)).error == "x" * MAX_ERROR_BYTES


def test_requests_repeated_node_is_admitted_as_served() -> None:
    """A request that names two nodes must not be admitted as the one and served as the other."""
    twice = b"".join(bytes(DeltaDiscoveryRequest(node=core_v3.Node(id=one))) for one in ("mine", "other"))
    decoded = delta_request(twice).node
    assert decoded
    assert claimed_node_id(proto.DeltaDiscoveryRequest, twice) == decoded.id
    sotw = b"".join(bytes(DiscoveryRequest(node=core_v3.Node(id=one))) for one in ("mine", "other"))
    served = SotwDecoder().decode(sotw).node
    assert served
    assert claimed_node_id(proto.DiscoveryRequest, sotw) == served.id
