"""Send the requests of a case by Python's own client, and print the answers. Arguments: the URL and the case."""

from __future__ import annotations

import http.client
import sys
import urllib.request
from collections.abc import Iterator

URL, CASE = sys.argv[1:]
BODY = b"ab" * 50_000
connection = http.client.HTTPConnection(URL.removeprefix("http://"), timeout=60)


def stream() -> Iterator[bytes]:
    yield BODY[:30_000]
    yield BODY[30_000:]


def send(
    method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: dict[str, str] | None = None
) -> None:
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    print(answer.version, answer.status, answer.reason, answer.getheaders(), answer.read().decode("latin-1"))


match CASE:
    case "get":
        send("GET", "/a/%7Efoo/./b%41?q=%20+&x=%C3%BC")
    case "head":
        send("HEAD", "/")
    case "post":
        send("POST", "/", BODY)
    case "stream":
        send("PUT", "/", stream())
    case "delete":
        send("DELETE", "/")
    case "chunked":
        send("GET", "/chunked")
    case "headers":
        send("GET", "/", None, {"X-CamelCase": "Yes", "x_under": "1", "Cookie": "a=1; b=2", "X-Latin": "Zo\xeb"})
    case "twice":
        send("GET", "/first")
        send("POST", "/second", b"second")
    case "urllib":
        with urllib.request.urlopen(f"{URL}/", data=BODY, timeout=60) as opened:
            print(opened.status, opened.reason, opened.getheaders(), opened.read().decode())
