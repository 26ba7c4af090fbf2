"""redis-benchmark and redis-cli: every command of the benchmark, and protocols that keep a connection, over TCP."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.conformance.conftest import Outcome, Record
from tests.conformance.programs import listening, run
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy

pytestmark = pytest.mark.redis
SERVER = ["redis-server", "--port", "{port}", "--bind", LOCAL, "--save", "", "--appendonly", "no"]
KEYS = ("set", "get", "incr", "mset", "hset", "sadd", "spop", "zadd", "zpopmin")
LISTS = ("lpush", "rpush", "lpop", "rpop", "lrange_100", "lrange_300")
BENCHMARKS = {
    **{test: ["-t", test] for test in ("ping_inline", "ping_mbulk", *KEYS, *LISTS)},
    "pipelined": ["-t", "set,get", "-P", "16"],
    "large": ["-t", "set,get", "-d", "100000", "-n", "200"],
    "connection-for-each": ["-t", "set", "-k", "0"],
    "resp3": ["-t", "set,get", "-3"],
    "threads": ["-t", "set,get", "--threads", "2"],
}
COMMANDS = {
    "binary": ['set k "\\x00\\xff\\r\\n"', "get k", "strlen k"],
    "transaction": ["multi", "set a 1", "incr a", "exec", "multi", "discard"],
    "error": ["nosuchcommand", "set a b", "incr a", "get a"],
    "blocking": ["blpop nothing 0.05", "lpush some v", "blpop some 1"],
    "resp3": ["hello 3", "hset h f v", "hgetall h"],
    "script": ["eval \"return {1, 'two', {3}}\" 0"],
    "stream": ["xadd s 1-1 f v", "xread streams s 0", "xread block 50 streams s 1-1"],
    "select": ["select 3", "set a 1", "select 0", "exists a"],
    "quit": ["ping", "quit"],
}
"""Lines for redis-cli, whose output is compared."""
REQUESTS, CLIENTS = "1000", "20"


@pytest.fixture(scope="module")
def direct() -> Iterator[int]:
    """The port of Redis without zenvoy."""
    with listening(SERVER) as port:
        yield port


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    return shared_zenvoy({"name": "redis", "protocol": "tcp", "command": SERVER}, defaults=SLOW_TO_SLEEP)


def benchmark(port: int, name: str) -> str | None:
    """Run a benchmark, and return its output if a request failed."""
    sizes = ["-n", REQUESTS, "-c", CLIENTS]
    done = run("redis-benchmark", "-h", LOCAL, "-p", str(port), "--csv", *sizes, *BENCHMARKS[name])
    rows = re.findall(r'^"[^"]+","[0-9.]+"', done.stdout, re.MULTILINE)
    return None if rows and done.returncode == 0 else done.stdout or f"exit code {done.returncode}"


def answers(port: int, name: str) -> str:
    """Return what redis-cli prints for the lines of a name, on an empty database."""
    cli = ["redis-cli", "-h", LOCAL, "-p", str(port)]
    output = run(*cli, given="\n".join(COMMANDS[name]) + "\n").stdout
    run(*cli, "flushall")
    return re.sub(r"(?m)^(id|proto_ver) \d+$|(?<=\"id\" )\d+", "N", re.sub(r"(?<=^id\n)\d+$", "N", output, flags=re.M))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_redis_benchmark_through_zenvoy_fails_no_request(z: Zenvoy, direct: int, record: Record, name: str) -> None:
    z.sleep("redis")
    asleep = benchmark(z.port("redis"), name)
    z.wake("redis")
    outcome = Outcome(benchmark(direct, name), asleep, benchmark(z.port("redis"), name))
    record("redis-benchmark", outcome)
    assert not outcome.failed(), outcome


@pytest.mark.parametrize("name", COMMANDS)
def test_redis_cli_through_zenvoy_has_the_same_output(z: Zenvoy, direct: int, record: Record, name: str) -> None:
    z.sleep("redis")
    asleep = answers(z.port("redis"), name)
    z.wake("redis")
    expected, awake = answers(direct, name), answers(z.port("redis"), name)
    differs = {way: None if output == expected else output for way, output in (("asleep", asleep), ("awake", awake))}
    record("redis-cli", Outcome(None, **differs))
    assert (asleep, awake) == (expected, expected)
