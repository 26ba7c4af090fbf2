"""Calls to the API server. The `kubernetes` package provides configuration, credentials, TLS, and connections.

Requests and responses are bytes, not models of the package: see docs/decisions/0020. Callers retry and limit rates.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec
import structlog
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from multidict import CIMultiDict

from reconciler.core.text import error_text
from reconciler.kubernetes.client import credentials, port_forward
from reconciler.kubernetes.client.errors import NOT_FOUND, UNAUTHORIZED, ApiError, NoCluster, Unreachable, ignoring
from reconciler.kubernetes.types.objects import checked_path, decoder
from reconciler.proxy_environment import proxy_for

log = structlog.get_logger(__name__)

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
CALL_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0
IDLE_CONNECTION_SECONDS = 300
"""An idle connection is kept this long, so that a wake need not wait for a handshake."""
KEEPALIVE_SECONDS = 5
"""Idle time before a TCP keepalive probe; three unanswered probes close the connection. A watch may be silent for
minutes, and one whose peer vanished would be silent forever."""
WATCH, NO_ANSWER = "WATCH", "none"


class _Status(msgspec.Struct):
    """The body of an error. That of a proxy may have a `code` of another type, so it is not read."""

    reason: str = ""
    message: str = ""


_HANDSHAKE_ERRORS = {401: "not authenticated", 403: "access to pods/portforward denied", 404: "pod not found"}
"""A failed WebSocket handshake has no body."""
_STATUS = decoder(_Status)
Query = Mapping[str, str]
Credentials = tuple[str | None, bytes, bytes]
"""A token, and the contents of a client certificate's file and of its key's."""
_T = TypeVar("_T")


class Api:
    """A connection pool to one API server, for one event loop.

    `namespace` is the default namespace. `connections` limits the open connections; 0 means no limit. `renew` puts new
    credentials into `configuration`; it is called when the API server no longer accepts the present ones.
    `impersonation` are headers of all requests.
    """

    def __init__(
        self,
        configuration: Configuration,
        namespace: str,
        connections: int = 0,
        renew: Callable[[], Awaitable[None]] | None = None,
        impersonation: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.namespace = namespace
        self.called: Callable[[str, str], None] = lambda method, code: None
        """Called after each call with its method and its status code, or `none` without a response."""
        self.server: str = configuration.host
        self._configuration, self._renew, self._renewing = configuration, renew, asyncio.Lock()
        self._connections, self._impersonation = connections, impersonation
        # As kubectl: a cluster's CA may lack extensions that newer versions of Python require by default.
        configuration.disable_strict_ssl_verification = True
        configuration.trace_configs = [_without_redirects()]
        self._opened: list[tuple[ApiClient, aiohttp.TCPConnector]] = []
        """Current and past clients with their connectors; calls may still use those with a replaced certificate."""
        self._credentials = _credentials_of(configuration)
        self._open()

    def _open(self) -> None:
        """Create the connections' pool, with the certificates of the configuration."""
        self._client = ApiClient(self._configuration)
        self._connector = aiohttp.TCPConnector(
            limit=self._connections,
            socket_factory=_socket,
            ssl=self._client.rest_client.ssl_context,
            keepalive_timeout=IDLE_CONNECTION_SECONDS,
        )
        # aiohttp would read the environment for each call, in a pod too, and does not know CIDR blocks in NO_PROXY.
        self._configuration.client_session_kwargs = {"connector": self._connector, "trust_env": False}
        self._opened.append((self._client, self._connector))

    async def close(self) -> None:
        """Close all connections."""
        for client, connector in self._opened:
            await client.close()
            await connector.close()

    async def get(self, path: str, query: Query | None = None, timeout: float = CALL_TIMEOUT_SECONDS) -> bytes:
        """Return the body of a GET. Raises `ApiError` and `Unreachable`."""
        return await self.call("GET", path, query=query, timeout=timeout)

    async def find(self, path: str, timeout: float = CALL_TIMEOUT_SECONDS) -> bytes | None:
        """Return the object at a path; None if it does not exist. Raises `ApiError` and `Unreachable`."""
        with ignoring(NOT_FOUND):
            return await self.get(path, timeout=timeout)
        return None

    async def patch(self, path: str, body: Any, content_type: str, timeout: float = CALL_TIMEOUT_SECONDS) -> bytes:
        """Patch an object and return it. Raises `ApiError` and `Unreachable`."""
        return await self.call("PATCH", path, body, content_type, timeout=timeout)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = JSON,
        query: Query | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> bytes:
        """Send a request and return the response body.

        Raises `ApiError` and `Unreachable`, and `InvalidName` before anything is sent.
        """

        async def attempt() -> bytes:
            try:
                async with await self._request(method, path, body, content_type, query, timeout) as response:
                    answer = await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.called(method, NO_ANSWER)
                raise Unreachable(f"{method} {path}: {error_text(error)}") from error
            self.called(method, str(response.status))
            _check(response, answer)
            return answer

        return await self._authenticated(attempt)

    @asynccontextmanager
    async def lines(self, path: str, query: Query, timeout: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch for at most `timeout` seconds and return its lines.

        Raises `ApiError` and `Unreachable`, also during iteration.
        """
        try:
            used = self._credentials
            response = await self._request("GET", path, None, JSON, query, timeout)
            if response.status == UNAUTHORIZED and await self._renewed(used):
                response.release()
                response = await self._request("GET", path, None, JSON, query, timeout)
            self.called(WATCH, str(response.status))
            async with response:
                if response.status >= 400:
                    _check(response, await response.read())
                yield _lines(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"watch of {path}: {error_text(error)}") from error

    async def forwarded(
        self, where: str, port: int, path: str, timeout: float = CALL_TIMEOUT_SECONDS
    ) -> tuple[int, bytes]:
        """Send a GET to a port on a pod's loopback; return status and body. `where` is the pod's `portforward` path.

        Raises `ApiError`, `Unreachable`, and `PortForwardError`.
        """
        return await self._authenticated(lambda: self._forward(where, port, path, timeout))

    async def _forward(self, where: str, port: int, path: str, timeout: float) -> tuple[int, bytes]:
        headers = await self._headers("GET", where)
        answer = port_forward.PortForwardResponse()
        try:
            async with (
                asyncio.timeout(timeout),
                aiohttp.ClientSession(connector=self._connector, connector_owner=False) as session,
                session.ws_connect(
                    f"{self.server}{where}",
                    params={"ports": str(port)},
                    headers=headers,
                    protocols=(port_forward.PROTOCOL,),
                    proxy=self._configuration.proxy,
                    server_hostname=self._configuration.tls_server_name,
                    max_msg_size=port_forward.MAX_RESPONSE_BYTES,
                ) as socket_,
            ):
                await socket_.send_bytes(port_forward.request(path))
                async for message in socket_:
                    if message.type is aiohttp.WSMsgType.BINARY and answer.receive(message.data):
                        break
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status, "", _HANDSHAKE_ERRORS.get(error.status, "refused by the API server")) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"{where}: {error_text(error)}") from error
        return answer.read()

    async def _authenticated(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Return the result of `attempt`, which is repeated once with new credentials if the present ones expired."""
        used = self._credentials
        try:
            return await attempt()
        except ApiError as error:
            if error.status != UNAUTHORIZED or not await self._renewed(used):
                raise
        return await attempt()

    async def _renewed(self, refused: Credentials) -> bool:
        """Return whether there are other credentials than those refused; calls that fail together renew them once."""
        if self._renew is None:
            return False
        async with self._renewing:
            if self._credentials == refused:
                await self._renew()
                try:
                    renewed = _credentials_of(self._configuration)
                    if renewed[1:] != self._credentials[1:]:
                        self._open()
                    self._credentials = renewed
                except OSError as error:  # including the errors of TLS
                    log.warning("failed to use the new client certificate", error=str(error))
        return self._credentials != refused

    async def _headers(self, method: str, path: str, body: Any = None) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict(self._impersonation)
        headers["User-Agent"] = "zenvoy"
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        return headers

    async def _request(
        self, method: str, path: str, body: Any, content_type: str, query: Query | None, timeout: float
    ) -> aiohttp.ClientResponse:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT_SECONDS)
        url = f"{self.server}{checked_path(path)}" + (f"?{urlencode(query)}" if query else "")
        headers = await self._headers(method, path, body)
        headers.update({"Content-Type": content_type, "Accept": JSON})
        answer = await self._client.rest_client.request(method, url, headers, body, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        return response


async def connect(kubeconfig: Path | None = None, context: str | None = None, connections: int = 0) -> Api:
    """Connect to the cluster of a kubeconfig, or to the cluster of this pod.

    The order is that of kubectl: the arguments, `KUBECONFIG`, `~/.kube/config`; in a pod, its service account. Raises
    `NoCluster`.
    """
    configuration = Configuration()
    files = credentials.kubeconfig_files(kubeconfig, os.environ)
    try:
        if not files and context is None and credentials.SERVICE_ACCOUNT.joinpath("token").exists():
            return Api(configuration, credentials.configure_in_pod(configuration), connections)
        chosen = credentials.read_kubeconfigs(files, context)
        await _configure(configuration, chosen)

        async def renew() -> None:
            """Read the kubeconfig again, which asks its exec plugin; by name, because another may be current by now."""
            try:
                await _configure(configuration, credentials.read_kubeconfigs(files, chosen.name))
            except (NoCluster, OSError) as error:
                log.warning("failed to renew the credentials of the kubeconfig", error=str(error))

        return Api(configuration, chosen.namespace, connections, renew, chosen.impersonation)
    except OSError as error:  # including the errors of TLS
        raise NoCluster(f"no cluster found: {error}; set --kubeconfig or --context") from None


async def _configure(configuration: Configuration, chosen: credentials.Chosen) -> None:
    """Set the server and the credentials of a context. Raises `NoCluster` and `OSError`."""
    found: dict[str, str] = {}
    if file := chosen.user.get("tokenFile"):
        token = credentials.TokenFile(Path(file))
        configuration.refresh_api_key_hook = token.refresh
        found = {"token": token.read()}
    elif plugin := chosen.user.get("exec"):
        found = await credentials.exec_credentials(plugin, chosen.cluster)
    try:
        await config.load_kube_config_from_dict(chosen.document(found), client_configuration=configuration)
    except (config.ConfigException, ValueError, TypeError, AttributeError, LookupError) as error:
        raise NoCluster(
            f"no cluster found: context {chosen.name!r} of the kubeconfig is not valid ({error}); "
            "set --kubeconfig or --context"
        ) from None
    origin, proxy = "proxy-url of the kubeconfig", configuration.proxy
    if not proxy:
        origin, proxy = "proxy of the environment", proxy_for(configuration.host, os.environ)
    scheme = proxy.partition(":")[0] if proxy else ""
    if scheme not in ("", "http", "https"):
        raise NoCluster(f"no cluster found: the {origin} is a {scheme} proxy; use an http or https proxy")
    configuration.proxy = proxy


def _credentials_of(configuration: Configuration) -> Credentials:
    files = [Path(file).read_bytes() if file else b"" for file in (configuration.cert_file, configuration.key_file)]
    return configuration.api_key.get("BearerToken"), files[0], files[1]


def _without_redirects() -> aiohttp.TraceConfig:
    """Reject redirects: one could lead to another path, or send the token to another server."""

    async def refuse(_: aiohttp.ClientSession, __: Any, found: aiohttp.TraceRequestRedirectParams) -> None:
        raise aiohttp.ClientError(f"refused a redirect to {found.response.headers.get('Location', '')[:200]!r}")

    made = aiohttp.TraceConfig()
    made.on_request_redirect.append(refuse)
    return made


def _check(response: aiohttp.ClientResponse, answer: bytes) -> None:
    if response.status < 400:
        return
    try:
        status = _STATUS(answer)
    except msgspec.DecodeError:
        status = _Status(response.reason or "", answer[:200].decode(errors="replace"))
    raise ApiError(response.status, status.reason, status.message)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Return the lines of a response. A line has no maximum length: one object may exceed any buffer."""
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
    # Unacknowledged data also closes the connection after this time; keepalive probes are not sent then.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000)
    return made
