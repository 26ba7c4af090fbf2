"""Calls to the API server, by the asyncio client of the `kubernetes` package: who we are, where it is, TLS, tokens.

Rule: bytes in and out. The client's generated models would cost ten times what decoding only the wanted fields does
(`scaled_service.py`), and a list of 10,000 services has to fit. Callers retry
and limit rates.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import getproxies

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from yaml import YAMLError

from reconciler.kubernetes.client import port_forward
from reconciler.kubernetes.client.errors import ApiError, NoCluster, Unreachable
from reconciler.kubernetes.types.names import checked_path

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
JSON = "application/json"
CALL_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0
IDLE_CONNECTION_SECONDS = 300
"""How long a connection that nobody uses is kept: a wake should not have to wait for a handshake."""
KEEPALIVE_SECONDS = 5
"""A connection is probed after this long without a word, and given up after three probes: a watch may say nothing for
minutes, and one whose other end vanished would say nothing for ever."""


WATCH, NO_ANSWER = "WATCH", "none"


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""


_REFUSED = {401: "you are not known to it", 403: "you may not use pods/portforward there", 404: "there is no such pod"}
"""A handshake that fails has no body to read."""
_STATUS = msgspec.json.Decoder(_Status)
Query = Mapping[str, str]


class Api:
    """One API server. Made and used on one event loop; `close` ends it."""

    def __init__(self, configuration: Configuration, namespace: str, connections: int = 0) -> None:
        """`namespace` is where names without one are; `connections` bounds those open at once, 0 is no bound."""
        self.namespace = namespace
        self.called: Callable[[str, str], None] = lambda method, code: None
        """Told of each call that ended: its method, and the answer's code or `none`."""
        self.server: str = configuration.host
        self._client = ApiClient(configuration)
        self._connector = aiohttp.TCPConnector(
            limit=connections,
            socket_factory=_socket,
            ssl=self._client.rest_client.ssl_context,
            keepalive_timeout=IDLE_CONNECTION_SECONDS,
        )
        configuration.trace_configs = [_without_redirects()]
        # To ask the environment for a proxy and for netrc costs each call two turns of a thread, as much as all else.
        configuration.client_session_kwargs = {"connector": self._connector, "trust_env": bool(getproxies())}

    async def close(self) -> None:
        await self._client.close()
        await self._connector.close()

    async def get(self, path: str, query: Query | None = None, timeout: float = CALL_TIMEOUT_SECONDS) -> bytes:
        """The body. Raises `ApiError` and `Unreachable`."""
        return await self.call("GET", path, query=query, timeout=timeout)

    async def patch(self, path: str, body: Any, content_type: str, query: Query | None = None) -> bytes:
        """The patched object. Raises `ApiError` and `Unreachable`."""
        return await self.call("PATCH", path, body, content_type, query)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = JSON,
        query: Query | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> bytes:
        """Send `body`, plain data. Raises `ApiError` and `Unreachable`; `InvalidName` before anything is sent."""
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT_SECONDS)
        try:
            response = await self._request(method, path, body, content_type, query, limits)
            async with response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.called(method, NO_ANSWER)
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        self.called(method, str(response.status))
        _check(response, answer)
        return answer

    @asynccontextmanager
    async def lines(self, path: str, query: Query, timeout: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """A watch's lines, for at most `timeout` seconds. Raises `ApiError` and `Unreachable`, also while iterated."""
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT_SECONDS)
        try:
            response = await self._request("GET", path, None, JSON, query, limits)
            self.called(WATCH, str(response.status))
            async with response:
                if response.status >= 400:
                    _check(response, await response.read())
                yield _lines(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"watch of {path}: {error or type(error).__name__}") from error

    async def forwarded(
        self, where: str, port: int, path: str, timeout: float = CALL_TIMEOUT_SECONDS
    ) -> tuple[int, bytes]:
        """Ask a port of a pod's loopback for a path; return status and body. `where` is the pod's `portforward`.

        Raises `ApiError`, `Unreachable`, and `port_forward.Broken`.
        """
        headers = {"User-Agent": "zenvoy"}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], where, "GET", None)
        answer = port_forward.PortForwardResponse()
        try:
            async with (
                asyncio.timeout(timeout),
                aiohttp.ClientSession(
                    connector=self._connector, connector_owner=False, trust_env=bool(getproxies())
                ) as session,
                session.ws_connect(
                    f"{self.server}{where}",
                    params={"ports": str(port)},
                    headers=headers,
                    protocols=(port_forward.PROTOCOL,),
                    max_msg_size=port_forward.MOST_BYTES,
                ) as socket_,
            ):
                await socket_.send_bytes(port_forward.request(path))
                async for message in socket_:
                    if message.type is aiohttp.WSMsgType.BINARY and answer.receive(message.data):
                        break
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status, "", _REFUSED.get(error.status, "the API server refused it")) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"{where}: {error or type(error).__name__}") from error
        return answer.read()

    async def _request(
        self, method: str, path: str, body: Any, content_type: str, query: Query | None, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        url = f"{self.server}{checked_path(path)}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Content-Type": content_type, "Accept": JSON, "User-Agent": "zenvoy"}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        answer = await self._client.rest_client.request(method, url, headers, body, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        return response


async def connect(kubeconfig: Path | None = None, context: str | None = None, connections: int = 0) -> Api:
    """The cluster of a kubeconfig (its current context unless another is named), or the one that we are a pod of.

    As kubectl looks for it: what is given, `KUBECONFIG`, `~/.kube/config`; in a pod, its service account.
    Raises `NoCluster`.
    """
    configuration = Configuration()
    if kubeconfig is None and context is None and _SERVICE_ACCOUNT.joinpath("token").exists():
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise NoCluster(f"this pod's service account cannot be used: {error}") from None
        return Api(configuration, _SERVICE_ACCOUNT.joinpath("namespace").read_text().strip(), connections)
    file = str(kubeconfig) if kubeconfig else None
    try:
        await config.load_kube_config(config_file=file, context=context, client_configuration=configuration)
        _, current = config.list_kube_config_contexts(config_file=file)
        named = current if context is None else _context(file, context)
    except (config.ConfigException, OSError, ValueError) as error:
        raise NoCluster(f"no cluster to talk to: {error}; name one with --kubeconfig and --context") from None
    except (
        YAMLError,
        TypeError,
        AttributeError,
        LookupError,
        RecursionError,
        MemoryError,
    ) as error:  # of another shape, or no YAML at all
        raise NoCluster(f"{file or 'the kubeconfig'} is none ({error!r}); name another with --kubeconfig") from None
    return Api(configuration, named["context"].get("namespace") or "default", connections)


_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def _context(file: str | None, name: str) -> Any:
    contexts, _ = config.list_kube_config_contexts(config_file=file)
    return next(one for one in contexts if one["name"] == name)


def _without_redirects() -> aiohttp.TraceConfig:
    """Refuse to follow a redirect: it would lead to a path, or with our token to a server, that was not asked for."""

    async def refuse(_: aiohttp.ClientSession, __: Any, found: aiohttp.TraceRequestRedirectParams) -> None:
        raise aiohttp.ClientError(f"it redirects to {found.response.headers.get('Location', '')[:200]!r}")

    made = aiohttp.TraceConfig()
    made.on_request_redirect.append(refuse)
    return made


def _check(response: aiohttp.ClientResponse, answer: bytes) -> None:
    if response.status < 400:
        return
    try:
        status = _STATUS.decode(answer)
    except msgspec.DecodeError:
        status = _Status(response.reason or "", answer[:200].decode(errors="replace"))
    raise ApiError(response.status, status.reason, status.message)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Of any length: one object may be larger than any buffer."""
    parts: list[bytes] = []
    async for chunk in response.content.iter_any():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            parts.append(line)
            yield b"".join(parts)
            parts.clear()
        if rest:
            parts.append(rest)


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    # What was sent and is not acknowledged in this time ends the connection too; probes do not count then.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000)
    return made
