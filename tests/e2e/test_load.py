"""No request is lost under load, especially around the moment of a sleep."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, PATIENCE_SECONDS, POLL_SECONDS, SLOW_TO_SLEEP, Zenvoy, quick, until

SIDE_BY_SIDE = 5
CYCLES = 40
"""Rounds for each service: 200 in total."""
TCP_CYCLES = 20
BEFORE_SECONDS, AFTER_SECONDS = -0.03, 0.32
"""Requests are placed from so long before the command to sleep until its service is gone and the next one may start."""
Ask = Callable[[str], Awaitable[str]]


class Connection:
    """A connection to Envoy; `get` speaks HTTP/1.1, `line` sends and receives one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader, self.writer, self.host = reader, writer, host

    async def get(self, path: str) -> str:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        assert length, head
        body = (await self.reader.readexactly(int(length[1]))).decode()
        assert head.startswith("HTTP/1.1 200 "), head + body
        return body

    async def line(self, text: str) -> str:
        self.writer.write(f"{text}\n".encode())
        return (await self.reader.readuntil(b"\n")).decode()


@asynccontextmanager
async def connected(port: int, host: str = "") -> Any:
    reader, writer = await asyncio.open_connection(LOCAL, port)
    try:
        yield Connection(reader, writer, host)
    finally:
        writer.close()


async def true(what: str, check: Callable[[], Any]) -> None:
    """Wait like `until`, for coroutines."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not check():
            await asyncio.sleep(POLL_SECONDS)


async def in_time(*asked: Awaitable[Any]) -> list[Any]:
    """Return the answers. Raises `TimeoutError` if they take too long."""
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        return await asyncio.gather(*asked)


async def command(z: Zenvoy, name: str, word: str) -> str:
    answer = await asyncio.to_thread(z.ask, "POST", f"/v1/services/{name}/{word}")
    return str(answer["state"])


async def fall_asleep(z: Zenvoy, name: str) -> None:
    """Put it to sleep; the last request may count as in flight for a moment."""

    def is_settled(before: int) -> bool:
        return _settled(z.states(name)[before:])

    while True:
        before = len(z.states(name))
        if await command(z, name, "sleep") == "ScaledToZero":
            return
        await true(f"{name} sleeps or is awake again", partial(is_settled, before))
        if z.states(name)[-1] == "ScaledToZero":
            return


def _settled(states: list[str]) -> bool:
    return any(state in ("ScaledToZero", "Active") for state in states)


async def later(seconds: float, ask: Ask, path: str) -> str:
    await asyncio.sleep(seconds)  # places the request
    return await ask(path)


async def cycles(z: Zenvoy, name: str, number: int, asks: Iterable[Ask]) -> None:
    """Repeat sleeps with a request of each kind at some moment around them. Raises for a lost one."""
    asks = list(asks)
    for cycle in range(number):
        await fall_asleep(z, name)
        assert await in_time(asks[0](f"/wake/{cycle}")) == [f"{name} /wake/{cycle}\n"]
        placed = []
        for kind, ask in enumerate(asks):
            at = (cycle * len(asks) + kind) * (AFTER_SECONDS - BEFORE_SECONDS) / (number * len(asks))
            placed += [later(at, ask, f"/{cycle}/{kind}"), later(-BEFORE_SECONDS, _sleep_once(z, name), "")]
        answers = await in_time(*placed)
        assert answers[::2] == [f"{name} /{cycle}/{kind}\n" for kind in range(len(asks))]


def _sleep_once(z: Zenvoy, name: str) -> Ask:
    async def ask(_: str) -> str:
        return await command(z, name, "sleep")

    return ask


async def test_200_sleeps_lose_no_http_request(zenvoy: Start) -> None:
    names = [f"web{number}" for number in range(SIDE_BY_SIDE)]
    z = zenvoy(*({"name": name, "command": quick("http")} for name in names), defaults=SLOW_TO_SLEEP)

    async def over_a_new_connection(name: str, path: str) -> str:
        async with connected(z.http_port, name) as connection:
            return str(await connection.get(path))

    async with AsyncExitStack() as stack:
        tasks = []
        for name in names:
            kept = [await stack.enter_async_context(connected(z.http_port, name)) for _ in range(2)]
            new = [lambda path, name=name: over_a_new_connection(name, path) for _ in range(2)]
            tasks.append(cycles(z, name, CYCLES, [kept[0].get, new[0], kept[1].get, new[1]]))
        await asyncio.gather(*tasks)
    for name in names:
        assert z.states(name).count("ScaledToZero") >= CYCLES
        assert z.status(name)["refused"] == 0


async def test_sleeps_lose_no_tcp_connection(zenvoy: Start) -> None:
    names = [f"db{number}" for number in range(2)]
    services = ({"name": name, "protocol": "tcp", "command": quick("tcp")} for name in names)
    z = zenvoy(*services, defaults=SLOW_TO_SLEEP)

    async def ask(name: str, text: str) -> str:
        async with connected(z.port(name)) as connection:
            return str(await connection.line(text))

    asks = {name: [lambda text, name=name: ask(name, text) for _ in range(3)] for name in names}
    await asyncio.gather(*(cycles(z, name, TCP_CYCLES, asks[name]) for name in names))
    for name in names:
        assert z.states(name).count("ScaledToZero") >= TCP_CYCLES
        assert z.status(name)["refused"] == 0


async def test_500_connections_start_a_service_once(zenvoy: Start) -> None:
    z = zenvoy(
        {"name": "web", "command": quick("http")},
        {"name": "db", "protocol": "tcp", "command": quick("tcp")},
        defaults=SLOW_TO_SLEEP,
    )

    async def over_http(number: int) -> str:
        async with connected(z.http_port, "web") as connection:
            return str(await connection.get(f"/{number}"))

    async def over_tcp(number: int) -> str:
        async with connected(z.port("db")) as connection:
            return str(await connection.line(f"{number}"))

    assert await in_time(*map(over_http, range(500))) == [f"web /{number}\n" for number in range(500)]
    assert await in_time(*map(over_tcp, range(500))) == [f"db {number}\n" for number in range(500)]
    for name in ("web", "db"):
        assert z.wakes(name) == 1
        assert z.states(name)[:2] == ["Waking", "Active"]
        assert starts(z, name) == 1
        assert z.status(name)["refused"] == 0


async def test_50_services_wake_at_once(zenvoy: Start) -> None:
    names = [f"web{number}" for number in range(50)]
    z = zenvoy(*({"name": name, "command": quick("http")} for name in names), defaults=SLOW_TO_SLEEP)

    async def ask(name: str, path: str) -> str:
        async with connected(z.http_port, name) as connection:
            return str(await connection.get(path))

    answers = await in_time(*(ask(name, path) for path in ("/a", "/b") for name in names))
    assert answers == [f"{name} {path}\n" for path in ("/a", "/b") for name in names]
    for name in names:
        assert (z.wakes(name), starts(z, name)) == (1, 1)


async def test_hold_limit_under_load_is_kept(zenvoy: Start) -> None:
    """The first `maxHeld` are served; the others are refused at once with a reason."""
    gate = "go"
    command = ["sh", "-c", f'while [ ! -e {gate} ]; do sleep 0.02; done; exec "$@"', "sh", *quick("http")]
    z = zenvoy({"name": "web", "command": command, "maxHeld": 20}, defaults=SLOW_TO_SLEEP)

    async def ask() -> str:
        async with connected(z.http_port, "web") as connection:
            try:
                return str(await connection.get("/"))
            except AssertionError as refused:
                return str(refused)

    asked = [asyncio.create_task(ask()) for _ in range(50)]
    await true("30 are refused", lambda: sum(one.done() for one in asked) >= 30)
    z.open_gate(gate)
    answers = await in_time(*asked)
    assert answers.count("web /\n") == 20
    refused = [answer for answer in answers if answer != "web /\n"]
    assert all(answer.startswith("HTTP/1.1 503 ") and "maxHeld" in answer for answer in refused)
    z.wait_status("they are counted", "web", lambda view: view["refused"] == 30)


def starts(z: Zenvoy, name: str) -> int:
    """Return the number of starts that its program recorded."""
    return z.output(name).count("started")


def test_client_that_gives_up_is_not_replayed(zenvoy: Start, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    z = zenvoy({"name": "web", "command": quick("http", f"gate={gate}")}, defaults=SLOW_TO_SLEEP)
    with socket.create_connection((LOCAL, z.http_port)) as client:
        client.sendall(b"POST /order HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
        z.wait_status("it is held", "web", lambda view: view["held"] == 1)
    z.wait_status("it is gone", "web", lambda view: (view["held"], view["gone"]) == (0, 1))
    gate.touch()
    z.wait_state("web", "Active", "Idle")
    z.sleep("web")
    until("it has ended", lambda: not z.service_pids("web"))
    assert z.status("web")["requests"] <= 1  # Envoy counts requests that it could not deliver
