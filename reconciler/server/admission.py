"""Admission to the gRPC port: each stream is identified and entitled before its server reads it.

Runs once per stream. A stream waits for the EndpointSlices and names its sender within a bounded time, and nothing is
read from it before its certificate and address are known. The number of streams is bounded: in total, of one name,
and of those that are not identified yet. A name belongs to one address at a time, so a second peer cannot displace the
first. A method that is not listed is not served. Counterpart: `reconciler.core.access`, which decides.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from inspect import isasyncgenfunction
from typing import Any

import grpc
import structlog

from reconciler.core.access import Denied, Entitled, Listed, Peer, StreamKind, Unlisted, entitlement
from xds.server import peer_address

log = structlog.get_logger()

MAX_LOGGED = 1024
LOGGED_EVERY_SECONDS = 60.0
MAX_NAME_BYTES = 256
CHOSEN_SECONDS = 300.0
MAX_TEXT = 200
OPEN, UNIDENTIFIED = "open", "not identified yet"

Claims = Mapping[str, tuple[StreamKind, Callable[[Any], str]]]
"""By gRPC method, its kind of stream, and how to get the sender's name from the first message (empty: none)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on streams."""

    total: int = 16_384
    """More than two per node, for Envoy and holder, in the largest cluster that Kubernetes supports (5,000 nodes)."""
    unidentified: int = 256
    """Streams of peers whose name is unknown."""
    of_one_name: int = 4
    """One, and old streams that have not ended because their peer does not read."""
    chosen_names: int = 256
    """Names that peers chose themselves, in five minutes: a disconnected peer keeps its name for so long."""
    listing_seconds: float = 5.0
    """Time for an address to appear in the EndpointSlices."""
    first_message_seconds: float = 10.0


class RefusedError(Exception):
    """A stream that is not served, with the status that ends it."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Admission(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The interceptor to give to `grpc.aio.server`."""

    def __init__(
        self,
        claims: Claims,
        listed: Callable[[], Listed] = Listed,
        reserved: frozenset[str] = frozenset(),
        limits: Limits | None = None,
    ) -> None:
        """`listed` returns the present endpoints; `reserved` are names that only a Unix socket may use."""
        self._claims, self._listed, self._reserved = claims, listed, reserved
        self._limits = limits or Limits()
        self._most = {OPEN: self._limits.total, UNIDENTIFIED: self._limits.unidentified}
        self._counts: Counter[str] = Counter()
        """Open streams, by their state for people."""
        self._open: dict[tuple[StreamKind, str], list[str]] = {}
        """Addresses of the streams that are open under a name."""
        self._chosen: dict[tuple[StreamKind, str], float] = {}
        """Names that peers chose themselves, and when each was last opened."""
        self._relisted = asyncio.Event()
        self._logged: dict[tuple[str, str], float] = {}
        self.refused: Counter[tuple[str, ...]] = Counter()
        """Streams that were refused, by kind and gRPC status."""

    def relisted(self) -> None:
        """Check waiting streams again: the endpoints changed."""
        self._relisted.set()
        self._relisted = asyncio.Event()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method's handler behind admission; None for a method without a rule."""
        claim = self._claims.get(handler_call_details.method)
        handler = await continuation(handler_call_details) if claim else None
        if claim is None or handler is None:
            return None
        kind, name_in = claim

        async def admitted(requests: AsyncIterator[Any], context: Any) -> None:
            await self._serve(kind, name_in, handler.stream_stream, requests, context)

        reads = _reader(handler.request_deserializer)
        return grpc.stream_stream_rpc_method_handler(admitted, reads, handler.response_serializer)

    async def _serve(
        self, kind: StreamKind, name_in: Callable[[Any], str], serve: Any, requests: AsyncIterator[Any], context: Any
    ) -> None:
        """Admit a stream and serve it, or refuse it with a status."""
        peer = _peer(context)
        try:
            with self._counted(OPEN):
                entitled = await self._entitled(kind, peer)
                with ExitStack() as named:
                    if entitled.name is not None:  # known before the first message, so silent streams are bounded too
                        self._check(kind, entitled.name, entitled, peer)
                        named.enter_context(self._named(kind, entitled.name, peer.address))
                    # A stream whose peer could have any name; streams with a name are bounded by name.
                    with self._counted(UNIDENTIFIED) if entitled.name is None else nullcontext():
                        first, name = await self._first(name_in, requests)
                    self._check(kind, name, entitled, peer)
                    if entitled.name is None:
                        named.enter_context(self._named(kind, name, peer.address))
                    messages = _Messages(first, requests)
                    del first
                    await _run(serve, messages, context)
        except RefusedError as refused:
            self._report(kind, peer, refused)
            await context.abort(refused.code, str(refused))

    async def _entitled(self, kind: StreamKind, peer: Peer) -> Entitled:
        """Return what the peer is entitled to; wait a while for an address that the EndpointSlices do not have."""
        found = entitlement(kind, peer, self._listed())
        if isinstance(found, Unlisted):
            with self._counted(UNIDENTIFIED), suppress(TimeoutError):
                async with asyncio.timeout(self._limits.listing_seconds):
                    while isinstance(found, Unlisted):
                        await self._relisted.wait()
                        found = entitlement(kind, peer, self._listed())
        match found:
            case Entitled():
                return found
            case Denied(reason):
                raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, reason)
            case Unlisted(reason):
                raise RefusedError(grpc.StatusCode.UNAVAILABLE, reason)

    async def _first(self, name_in: Callable[[Any], str], requests: AsyncIterator[Any]) -> tuple[Any, str]:
        """Return the first message and the name of its sender. Raises `RefusedError`."""
        try:
            async with asyncio.timeout(self._limits.first_message_seconds):
                first = await anext(aiter(requests), None)
        except TimeoutError:
            raise RefusedError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "no message received in time; the first message must name its sender"
            ) from None
        try:
            name = "" if first is None else name_in(_readable(first))
        except ValueError as error:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, clean(str(error))) from None
        if not 0 < len(name.encode()) <= MAX_NAME_BYTES or not name.isprintable():
            raise RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the first message must name its sender in 1 to {MAX_NAME_BYTES} bytes of printable characters",
            )
        return first, name

    def _check(self, kind: StreamKind, name: str, entitled: Entitled, peer: Peer) -> None:
        if entitled.name is not None and name != entitled.name:
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{peer.address} may use the name {clean(entitled.name)} only; set the node id and the holder id to it",
            )
        if peer.address and name in self._reserved:
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED, "this name is that of the machine's own Envoy; choose another"
            )
        if peer.address and entitled.name is None:
            self._choose(kind, name)

    def _choose(self, kind: StreamKind, name: str) -> None:
        """Record a name that a peer chose itself. Raises `RefusedError` if there are too many."""
        now = time.monotonic()
        if (kind, name) not in self._chosen and len(self._chosen) >= self._limits.chosen_names:
            recent = {key: at for key, at in self._chosen.items() if key in self._open or now - at < CHOSEN_SECONDS}
            self._chosen = recent
            if len(recent) >= self._limits.chosen_names:
                raise RefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, f"{len(recent)} names were used in {CHOSEN_SECONDS:g} s; retry"
                )
        self._chosen[kind, name] = now

    @contextmanager
    def _counted(self, state: str) -> Iterator[None]:
        """Count a stream in a state, in which the number of streams is bounded."""
        if self._counts[state] >= self._most[state]:
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._counts[state]} streams are {state}; retry")
        self._counts[state] += 1
        try:
            yield
        finally:
            self._counts[state] -= 1

    @contextmanager
    def _named(self, kind: StreamKind, name: str, address: str) -> Iterator[None]:
        """Register a stream under a name: from one address at a time, and few of them."""
        present = self._open.setdefault((kind, name), [])
        if any(one != address for one in present):
            raise RefusedError(
                grpc.StatusCode.ALREADY_EXISTS,
                "a stream from another address has this name; give each Envoy and holder its own name, or retry",
            )
        if len(present) >= self._limits.of_one_name:
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{len(present)} streams have this name; retry")
        present.append(address)
        try:
            yield
        finally:
            present.remove(address)
            if not present:
                del self._open[kind, name]

    def _report(self, kind: StreamKind, peer: Peer, refused: RefusedError) -> None:
        """Count a refusal, and log it at most once a minute for each peer."""
        code, now = refused.code.name, time.monotonic()
        self.refused[kind, code] += 1
        key = (peer.address, code)
        if now - self._logged.get(key, -LOGGED_EVERY_SECONDS) < LOGGED_EVERY_SECONDS:
            return
        if len(self._logged) >= MAX_LOGGED:
            self._logged.clear()
        self._logged[key] = now
        log.warning("stream refused", stream=kind.value, address=peer.address, code=code, error=str(refused))


class _Messages:
    """The messages of a stream: the first one, which was read before, and the rest. Keeps none of them."""

    def __init__(self, first: Any, rest: AsyncIterator[Any]) -> None:
        self._first, self._rest = [first], rest

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Any:
        return _readable(self._first.pop() if self._first else await anext(self._rest))


async def _run(serve: Any, messages: _Messages, context: Any) -> None:
    """Run a server's method, which either returns its responses one by one or writes them itself."""
    if isasyncgenfunction(serve):
        async for response in serve(messages, context):
            await context.write(response)
    else:
        await serve(messages, context)


def clean(text: str) -> str:
    """Return the beginning of a peer's text, without control characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT])


def _readable(message: Any) -> Any:
    if isinstance(message, RefusedError):
        raise message
    return message


def _reader(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return a decoder that returns its errors: gRPC would log an error that is raised, with the peer's bytes."""
    if decode is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception as error:  # any failure is caused by the input
            return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, clean(f"message cannot be decoded: {error}"))

    return read


def _peer(context: Any) -> Peer:
    proved = context.auth_context()
    encrypted = b"ssl" in proved.get("transport_security_type", ())
    uris = tuple(uri.decode(errors="replace") for uri in proved.get("peer_uri", ()))
    return Peer(peer_address(context.peer()), encrypted, uris)
