"""Real databases: asleep means stopped, and the client that wakes them only waits a moment."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, Zenvoy, until

EXAMPLES = Path(__file__).parents[2] / "examples"
POSTGRES = str(EXAMPLES / "postgres" / "postgres.sh")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Provide a folder for data that every user can reach, unlike pytest's own: PostgreSQL does not run as root."""
    made = Path(tempfile.mkdtemp(prefix="zenvoy-db-", dir="/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def postgres(folder: Path, name: str, **fields: object) -> dict[str, object]:
    """Return the service of examples/postgres, without waiting for the disk."""
    command = [POSTGRES, "{port}", str(folder / name), "-c", "fsync=off", "-c", "max_wal_senders=0"]
    ready = {"command": [str(EXAMPLES / "postgres" / "ready.sh"), "{port}"]}
    return {"name": name, "protocol": "tcp", "command": command, "stopSignal": "SIGINT", "ready": ready, **fields}


def redis(name: str, **fields: object) -> dict[str, object]:
    """Return the service of examples/redis."""
    command = [
        "redis-server",
        "--port",
        "{port}",
        "--bind",
        LOCAL,
        "--dir",
        ".",
        "--dbfilename",
        name,
        "--save",
        "3600 1",
    ]
    return {"name": name, "protocol": "tcp", "command": command, **fields}


@pytest.fixture(scope="module")
def postgresql(shared_zenvoy: Start, folder: Path) -> Zenvoy:
    return shared_zenvoy(
        postgres(folder, "db", idleAfter="10m", drainTimeout="2m"),
        postgres(folder, "used", drainTimeout="5s"),
        postgres(folder, "pooled", idle={"by": "bytes"}, drainTimeout="2m"),
        defaults={**QUICK, "wakeTimeout": "60s", "holdTimeout": "60s"},
    )


@pytest.fixture(scope="module")
def redises(shared_zenvoy: Start) -> Zenvoy:
    return shared_zenvoy(
        redis("redis", idleAfter="10m"), redis("silent", idle={"by": "bytes"}), defaults={**QUICK, "drainTimeout": "2m"}
    )


def psql_command(z: Zenvoy, name: str) -> list[str]:
    """Return psql of its own package: Debian's wrapper reads the configuration of clusters first."""
    options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
    return ["psql", *options, "-h", LOCAL, "-p", str(z.port(name)), "-U", "postgres", "-d", "postgres"]


def psql(z: Zenvoy, name: str, *statements: str) -> list[str]:
    """Run psql and return its lines; every statement must succeed."""
    done = subprocess.run(
        psql_command(z, name),
        input=";\n".join(statements) + ";\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class Session:
    """A client program that stays connected, and gets one line at a time."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        assert self._process.stdin and self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._out.fileno(), False)

    def tell(self, line: str) -> None:
        self._in.write(f"{line}\n".encode())

    def reads(self, expected: str) -> str:
        """Return the output since the last call, once `expected` is part of it."""
        seen = b""

        def look() -> bool:
            nonlocal seen
            seen += self._out.read() or b""
            return expected.encode() in seen

        until(f"a client prints {expected!r}", look)
        return seen.decode()

    def close(self) -> None:
        self._in.close()
        try:
            self._process.wait(20)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._out.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.mark.postgres
def test_postgres_asleep_psql_is_answered(postgresql: Zenvoy) -> None:
    z = postgresql
    z.asleep("db")
    assert psql(z, "db", "create table t (n int, filler text)", "insert into t values (1, 'one')") == []
    for count in range(2, 7):
        z.sleep("db")
        z.asleep("db")
        rows = psql(z, "db", f"insert into t values ({count}, repeat('x', 100000))", "select n, length(filler) from t")
        assert rows == ["1|3", *(f"{n}|100000" for n in range(2, count + 1))]
        assert z.woken("db")["stalled"] is None
    assert z.wakes("db") == 6
    log = (z.state_dir / "logs" / "db.log").read_text()
    assert log.count("database system is shut down") == 5
    assert "was not properly shut down" not in log


@pytest.mark.postgres
def test_postgres_open_transaction_is_not_cut(postgresql: Zenvoy) -> None:
    z = postgresql
    z.asleep("used")
    with Session(psql_command(z, "used")) as session:
        session.tell("begin; create table kept (n int); insert into kept values (42); select 'begun';")
        session.reads("begun")
        z.stays_awake("used", 3)
        assert z.cli("sleep", "used").returncode == 1, "nor on a sleep command"
        assert z.wait_state("used", "Active", "Idle")["reason"]
        session.tell("insert into kept values (43); commit; select 'done';")
        session.reads("done")
    z.wait_state("used", "ScaledToZero")
    assert z.wakes("used") == 1
    assert psql(z, "used", "select sum(n) from kept") == ["85"]


@pytest.mark.postgres
def test_postgres_silent_pool_sleeps_and_reconnects(postgresql: Zenvoy) -> None:
    z = postgresql
    with ExitStack() as stack:
        with z.kept_awake("pooled"):
            pool = [stack.enter_context(Session(psql_command(z, "pooled"))) for _ in range(3)]
            for number, session in enumerate(pool):
                session.tell(f"select 'pooled {number}';")
                session.reads(f"pooled {number}")
            assert z.wakes("pooled") == 1
        z.wait_status("it has stopped", "pooled", lambda view: (view["state"], view["replicas"]) == ("ScaledToZero", 0))
        pool[0].tell("select 'lost';")
        pool[0].reads("connection")
        z.asleep("pooled")
        assert psql(z, "pooled", "select 'found'") == ["found"]
        assert z.wakes("pooled") == 2
        assert "shutdown request" in (z.state_dir / "logs" / "pooled.log").read_text()


@pytest.mark.redis
def test_redis_asleep_redis_cli_is_answered(redises: Zenvoy) -> None:
    z = redises
    for count in range(1, 5):
        z.asleep("redis")
        command = ["redis-cli", "-h", LOCAL, "-p", str(z.port("redis")), "incr", "visits"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout == f"{count}\n", done.stdout + done.stderr
        z.woken("redis")
        z.sleep("redis")
    assert z.wakes("redis") == 4


@pytest.mark.redis
def test_redis_connected_client_reconnects(redises: Zenvoy) -> None:
    """With `idle: {by: bytes}` it sleeps behind the client's back."""
    z = redises
    with ExitStack() as stack:
        with z.kept_awake("silent"):
            session = stack.enter_context(Session(["redis-cli", "-h", LOCAL, "-p", str(z.port("silent"))]))
            session.tell("set color blue")
            session.reads("OK")
        z.wait_status("it has stopped", "silent", lambda view: (view["state"], view["replicas"]) == ("ScaledToZero", 0))
        z.asleep("silent")
        with z.kept_awake("silent"):
            session.tell("get color")
            session.tell("get color")
            session.reads("blue")
    assert z.wakes("silent") == 2
