"""The HTTP clients of Go, Java, Node.js, and Python: what the program receives, and what the client returns."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conformance.conftest import Outcome, Record
from tests.conformance.programs import MODULE, built, listening, run
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SERVERS, SLOW_TO_SLEEP, Zenvoy
from tests.ports import free_port

SERVER = [sys.executable, "-I", "-S", str(SERVERS / "raw_http.py"), "{port}"]
COMMON = ("get", "head", "post", "stream", "delete", "chunked", "headers", "twice")
CASES = {
    "go": (*COMMON, "expect"),
    "java": (*COMMON, "expect", "http1"),
    "node": (*COMMON, "expect", "fetch-get", "fetch-post", "fetch-stream", "fetch-chunked"),
    "python": (*COMMON, "urllib"),
}
CHANGED = re.compile(
    r"(?i)X-Forwarded-For: [0-9.]+$|X-Forwarded-Proto: http$|(Proxy-)?(Connection|Keep-Alive): |"
    r"Upgrade: h2c$|HTTP2-Settings: "
)
REWRITTEN = {", ('Connection', 'close')": "", "X-Sum": "x-sum"}
"""In the lists of headers that clients print."""
MOVED = re.compile(r"(?i)(Host|Transfer-Encoding): ")
ADDRESS = re.compile(r"127\.0\.\d+\.\d+:\d+")
LENGTH = re.compile(r"(?i)(content-length\W{1,6})\d+")
"""The length of an answer, which has the request as its body."""


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    classes = tmp_path_factory.mktemp("classes")
    subprocess.run(["javac", "-d", str(classes), str(MODULE / "Client.java")], check=True, timeout=120)
    return {
        "go": [built("httpclient")],
        "java": ["java", "-XX:TieredStopAtLevel=1", "-cp", str(classes), "Client"],
        "node": ["node", str(MODULE / "client.mjs")],
        "python": [sys.executable, str(MODULE / "client.py")],
    }


@pytest.fixture(scope="module")
def direct() -> Iterator[int]:
    """The port of the program without zenvoy."""
    with listening(SERVER) as port:
        yield port


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    """Provide a service for each client, at an address of its own."""
    services = [{"name": name, "command": SERVER, "hosts": [address(name)]} for name in CASES]
    return shared_zenvoy(*services, defaults=SLOW_TO_SLEEP, listen={"http": f"0.0.0.0:{free_port()}"})


def address(name: str) -> str:
    return f"127.0.4.{1 + list(CASES).index(name)}"


@pytest.mark.parametrize(("client", "case"), [(client, case) for client, cases in CASES.items() for case in cases])
def test_client_through_zenvoy_returns_the_same(
    z: Zenvoy, direct: int, clients: dict[str, list[str]], record: Record, client: str, case: str
) -> None:
    def output(host: str, port: int) -> str:
        done = run(*clients[client], f"http://{host}:{port}", case)
        assert done.returncode == 0, done.stdout
        return normalized(done.stdout)

    z.sleep(client)
    asleep = output(address(client), z.http_port)
    z.wake(client)
    expected, awake = output(LOCAL, direct), output(address(client), z.http_port)
    differs = {way: None if text == expected else text for way, text in (("asleep", asleep), ("awake", awake))}
    record(f"HTTP client of {client}", Outcome(None, **differs))
    assert asleep == expected
    assert awake == expected


def normalized(output: str) -> str:
    """Return the output without the changes that docs/envoy-defaults.md lists."""
    text = LENGTH.sub(r"\1N", ADDRESS.sub("HOST", output))
    for old, new in REWRITTEN.items():
        text = text.replace(old, new)
    lines = [line for line in text.splitlines() if not CHANGED.match(line)]
    moved = [line for line in lines if MOVED.match(line)]
    return "\n".join([*(line for line in lines if line not in moved), *sorted(moved)])
