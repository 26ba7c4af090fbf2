"""Client for the checks of pods: HTTP, TCP, and gRPC, as the kubelet sends them.

A pod is not trusted: answers are bounded in size and time, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from reconciler.core.address import join_address
from reconciler.kubernetes.workloads.probes.checks import Check, GrpcCheck, HttpCheck, TcpCheck
from reconciler.kubernetes.workloads.probing import accepts

MAX_TIMEOUT_SECONDS = 10.0
"""A longer timeout of a probe ends here, because an unanswered check occupies a slot."""
MAX_CONCURRENT_CHECKS = 256
MAX_LINE_BYTES = 4096
MAX_HEADERS = 64
MAX_MESSAGE_BYTES = 4096
USER_AGENT = "kube-probe/zenvoy"
"""Begins like the kubelet's, by which programs and ignore rules recognize probes."""
DEFAULT_HEADERS = (("User-Agent", USER_AGENT), ("Accept", "*/*"))
SERVING = 1
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_GRPC_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_metadata_size", MAX_LINE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.primary_user_agent", USER_AGENT),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
)


class ProbeClient:
    """A client for one event loop, with bounded concurrency."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None

    async def run(self, ip: str, check: Check) -> bool:
        """Run a check of the pod at `ip`, and return whether it passed."""
        seconds = min(check.timeout_seconds, MAX_TIMEOUT_SECONDS)
        async with self._slots:
            try:
                async with asyncio.timeout(seconds):
                    return await self._result(ip, check, seconds)
            except TimeoutError:
                return False

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _result(self, ip: str, check: Check, seconds: float) -> bool:
        match check:
            case HttpCheck():
                return await self._http(ip, check)
            case GrpcCheck():
                return await _grpc(join_address(ip, check.port), check.service, seconds)
            case TcpCheck():
                return await accepts(join_address(ip, check.port), seconds) is True

    async def _http(self, ip: str, check: HttpCheck) -> bool:
        scheme = "https" if check.tls else "http"
        # Without a slash, a path such as `@example.com` would replace the host.
        path = check.path if check.path.startswith("/") else f"/{check.path}"
        given = {name.lower() for name, _ in check.headers}
        defaults = [header for header in DEFAULT_HEADERS if header[0].lower() not in given]
        try:
            response = await self._open_session().get(
                f"{scheme}://{join_address(ip, check.port)}{path}",
                headers=[*defaults, *check.headers],
                skip_auto_headers=("Accept-Encoding",),
                allow_redirects=False,
                max_line_size=MAX_LINE_BYTES,
                max_field_size=MAX_LINE_BYTES,
                max_headers=MAX_HEADERS,
                ssl=self._unverified() if check.tls else True,
            )
        except (aiohttp.ClientError, OSError, ValueError):
            return False
        response.close()
        return 200 <= response.status < 300

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _unverified(self) -> ssl.SSLContext:
        """Return a context that accepts any certificate, as the kubelet does: a pod is known by its address."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        return self._tls


async def _grpc(address: str, service: str, seconds: float) -> bool:
    if await accepts(address, seconds) is not True:  # a dial costs much less than a channel
        return False
    family = "ipv6" if address.startswith("[") else "ipv4"
    async with grpc.aio.insecure_channel(f"{family}:{address}", options=_GRPC_OPTIONS) as channel:
        # HealthCheckRequest and HealthCheckResponse have the same encoding as these messages.
        call = channel.unary_unary(
            HEALTH_CHECK, request_serializer=StringValue.SerializeToString, response_deserializer=Int32Value.FromString
        )
        try:
            answer = await call(StringValue(value=service), timeout=seconds)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.value == SERVING)
