"""Client for the checks of pods: HTTP, TCP, and gRPC, as the kubelet sends them.

A pod is not trusted: answers are bounded in size and time, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from functools import cache
from urllib.parse import quote

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from reconciler.core.address import join_address
from reconciler.http_get import NoStatus, ask, request_head
from reconciler.kubernetes.workloads.probes.checks import Check, GrpcCheck, HttpCheck, TcpCheck
from reconciler.kubernetes.workloads.probing import accepts

MAX_TIMEOUT_SECONDS = 10.0
"""A longer timeout of a probe ends here, because an unanswered check occupies a slot."""
MAX_METADATA_BYTES = 4096
MAX_MESSAGE_BYTES = 4096
USER_AGENT = "kube-probe/zenvoy"
"""Begins like the kubelet's, by which programs and ignore rules recognize probes."""
SERVING = 1
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\x00-\x08\x0a-\x1f\x7f]*")
_SAFE_IN_TARGET = "!$%&'()*+,/:;=?@[]~"
_GRPC_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.primary_user_agent", USER_AGENT),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
)


async def run(ip: str, check: Check) -> bool:
    """Run a check of the pod at `ip`, and return whether it passed."""
    seconds = min(check.timeout_seconds, MAX_TIMEOUT_SECONDS)
    address = join_address(ip, check.port)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            match check:
                case HttpCheck():
                    return await _http(ip, check)
                case GrpcCheck():
                    return await _grpc(address, check.service, seconds)
                case TcpCheck():
                    return await accepts(address, seconds) is True
    return False


async def _http(ip: str, check: HttpCheck) -> bool:
    path = quote(check.path.partition("#")[0], safe=_SAFE_IN_TARGET)
    target = path if path.startswith("/") else f"/{path}"
    if not all(_HEADER.fullmatch(f"{name}: {value}") for name, value in check.headers):
        return False
    head = request_head(ip, check.port, target, USER_AGENT, check.headers)
    try:
        status = await ask(ip, check.port, head, _unverified() if check.tls else None, whole_head=True)
    except (NoStatus, OSError):
        return False
    return 200 <= status < 300


@cache
def _unverified() -> ssl.SSLContext:
    """Return a context that accepts any certificate, as the kubelet does: a pod is known by its address."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


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
