"""Attacks from a stranger's pod on zenvoy's pods: runs in that pod and prints the answers as JSON.

Arguments: IP addresses of the reconcilers, a slash, IP addresses of the proxies.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request

import grpc

SECONDS = 5
STREAMS = (
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    "/zenvoy.v1.Holder/Stream",
    "/zenvoy.v1.Peer/Stream",
)


def http(address: str, port: int, method: str, path: str) -> str:
    """Return the status of an answer, or the kind of failure."""
    request = urllib.request.Request(f"http://{address}:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError:
        return "refused"


def stream(address: str, method: str, secure: bool) -> str:
    """Return the gRPC status of a stream, or that it was answered."""
    target = f"{address}:18000"
    channel = grpc.secure_channel(target, grpc.ssl_channel_credentials()) if secure else grpc.insecure_channel(target)
    with channel:
        try:
            next(iter(channel.stream_stream(method)(iter([b""]), timeout=SECONDS)))
        except grpc.RpcError as error:
            return str(error.code().name)
        except StopIteration:
            return "ended"
        return "answered"


def main() -> None:
    """Try each attack, and print a JSON list of the attempts and their results."""
    cut = sys.argv.index("/")
    tried: list[tuple[str, str]] = []
    for address in sys.argv[1:cut]:
        for method in STREAMS:
            tried += [(f"stream {method}", stream(address, method, secure)) for secure in (False, True)]
        for path in ("/v1/services", "/v1/overview"):
            tried += [(f"GET {port}{path}", http(address, port, "GET", path)) for port in (18080, 18082)]
        tried.append(("POST wake", http(address, 18080, "POST", "/v1/services/shop/web/wake")))
    for address in sys.argv[cut + 1 :]:
        tried += [(f"GET {port}/", http(address, port, "GET", "/config_dump")) for port in (9901, 9902, 18081)]
        tried += [
            (f"POST {path}", http(address, 9902, "POST", path)) for path in ("/quitquitquit", "/healthcheck/fail")
        ]
    print(json.dumps(tried))


if __name__ == "__main__":
    main()
