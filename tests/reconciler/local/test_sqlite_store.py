"""Persistence of records, and failures of the disk."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import structlog

from reconciler.core.record import Record, State
from reconciler.local import sqlite_store
from reconciler.local.sqlite_store import SqliteStore

ASLEEP = Record(State.ScaledToZero, 12.5, "idle for all of idleAfter", 3, "127.64.0.1:18001", zeroed=True)
STALLED = Record(State.Waking, 99.0, "a client is waiting", 1, "127.64.0.2:18001", stalled="exited with code 1")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may be slow where a test has no limit of its own."""
    monkeypatch.setattr(sqlite_store, "OPEN_SECONDS", 60.0)
    monkeypatch.setattr(sqlite_store, "CLOSE_SECONDS", 60.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    return store


async def eventually(what: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.005)


async def reread(path: Path) -> dict[str, Record]:
    store = await opened(path)
    await store.close()
    return store.records()


def damaged(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))


def not_a_database(path: Path) -> None:
    path.write_text("hello\n" * 1000)


def truncated(path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes()[:5000])


def a_directory(path: Path) -> None:
    path.mkdir()


def a_symlink(path: Path) -> None:
    target = path.with_name("foreign.db")
    filled(target)
    path.symlink_to(target)


def of_another_schema(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.executescript("CREATE TABLE record (name TEXT); CREATE TABLE paused (x); CREATE TABLE counter (x);")
    database.close()


def filled(path: Path) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript("PRAGMA journal_mode=WAL;" + sqlite_store.SCHEMA)
    for at in range(500):
        row = (f"s{at}", b'{"state":"Active","since":1.0,"reason":"x","replicas":2,"hold_address":"127.64.0.9:1"}')
        database.execute("INSERT INTO record VALUES (?, ?)", row)
    database.close()


async def test_store_reopened_has_records(path: Path) -> None:
    store = await opened(path)
    store.save("web", STALLED)
    store.save("web", ASLEEP)
    store.save("db", STALLED)
    store.save("gone", ASLEEP)
    store.pause("gone", True)
    store.forget("gone")
    store.pause("db", True)
    store.pause("web", True)
    store.pause("web", False)
    await store.close()
    again = await opened(path)
    assert again.records() == {"web": ASLEEP, "db": STALLED}
    assert again.paused() == {"db"}
    await again.close()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_next_index_is_never_repeated(path: Path) -> None:
    store = await opened(path)
    first = [store.next_index() for _ in range(3000)]
    await store.close()
    again = await opened(path)
    assert [*first, again.next_index()] == list(range(1, 3002))
    await again.close()


@pytest.mark.parametrize(
    "break_it",
    [damaged, not_a_database, truncated, a_directory, a_symlink, of_another_schema],
    ids=lambda f: f.__name__,
)
async def test_store_unreadable_file_is_renamed(path: Path, break_it: Callable[[Path], None]) -> None:
    break_it(path)
    before = path.read_bytes() if path.is_file() else b""
    with structlog.testing.capture_logs() as lines:
        store = await opened(path)
    assert store.records() == {}
    assert any("start without them" in line["event"] for line in lines)
    assert store.set_aside
    aside = path.with_name(store.set_aside.partition(": ")[0])
    assert aside.exists()
    if break_it is not of_another_schema:
        assert (aside.read_bytes() if aside.is_file() else b"") == before, "it is kept as it was"
    store.save("web", ASLEEP)
    await eventually(lambda: not store.unsaved)
    await store.close()
    assert await reread(path) == {"web": ASLEEP}


async def test_store_unreadable_record_loses_only_itself(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE record SET record = 'x' WHERE service = 's7'")
    database.close()
    store = await opened(path)
    assert len(store.records()) == 499 and store.set_aside is None
    await store.close()


async def test_store_locked_file_blocks_no_call(path: Path) -> None:
    filled(path)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.executescript("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; INSERT INTO paused VALUES ('s1');")
    store = await opened(path)
    assert store.records() == {} and "locked" in str(store.failing)
    store.save("web", ASLEEP)
    store.save("web", STALLED)
    lock.execute("COMMIT")
    lock.close()
    await eventually(lambda: store.failing is None and not store.unsaved)
    assert store.set_aside is None, "the other process could still write to it"
    await store.close()
    assert (await reread(path))["web"] == STALLED


async def test_store_full_disk_queues_one_record_per_service(path: Path) -> None:
    """A lock stands for a disk that is full: both end with the next attempt that succeeds."""
    store = await opened(path)
    store.save("gone", ASLEEP)
    await eventually(lambda: not store.unsaved)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with structlog.testing.capture_logs() as lines:
        for at in range(2000):
            store.save(f"s{at % 10}", replace(STALLED, since=float(at)))
        store.forget("gone")
        await eventually(lambda: store.failing)
        assert store.unsaved <= 11
        assert store.records().keys() == {f"s{at}" for at in range(10)}
    blocker.execute("ROLLBACK")
    blocker.close()
    await eventually(lambda: store.failing is None and not store.unsaved)
    await store.close()
    assert sum("failed to write records" in line["event"] for line in lines) == 1, "reported once"
    assert await reread(path) == {f"s{at}": replace(STALLED, since=1990.0 + at) for at in range(10)}


async def test_store_file_damaged_in_use_is_replaced(path: Path) -> None:
    store = await opened(path)
    store.save("web", ASLEEP)
    store.pause("web", True)
    await eventually(lambda: not store.unsaved)
    for one in path.parent.iterdir():
        one.unlink()
    not_a_database(path)
    store.save("db", STALLED)
    await eventually(lambda: not store.unsaved and store.failing is None)
    assert store.set_aside
    await store.close()
    again = await opened(path)
    assert again.records() == {"web": ASLEEP, "db": STALLED} and again.paused() == {"web"}
    await again.close()


async def test_store_read_only_file_is_read_and_reported() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.db"
        filled(path)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        child = Popen([sys.executable, "-c", READ_AS_A_USER, str(path)], stdout=PIPE, cwd=os.getcwd())
        said, _ = child.communicate(timeout=60)
        path.parent.chmod(0o755)
    assert said.split() == [b"500", b"True", b"None"]


READ_AS_A_USER = """
import asyncio, os, sys
from pathlib import Path
import structlog
from reconciler.local.sqlite_store import SqliteStore
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
async def main():
    if not os.geteuid():
        os.setresuid(65534, 65534, 65534)  # for root, modes do not count
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    print(len(store.records()), store.failing is not None, store.set_aside)
    await store.close()
asyncio.run(main())
"""


async def test_store_hanging_disk_delays_no_start(path: Path, hanging: Callable[[Path], None]) -> None:
    hanging(path)
    async with asyncio.timeout(60):
        store = await opened(path)
        store.save("web", ASLEEP)
        assert store.records() == {"web": ASLEEP} and store.failing
        store.next_index()
        await store.close()


@pytest.fixture
def hanging(patient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """A file whose lock never comes free within the limit: a stand-in for a disk that does not answer."""
    monkeypatch.setattr(sqlite_store, "OPEN_SECONDS", 2.0)
    monkeypatch.setattr(sqlite_store, "CLOSE_SECONDS", 1.0)
    locks: list[sqlite3.Connection] = []

    def hang(path: Path) -> None:
        lock = sqlite3.connect(path, isolation_level=None)
        lock.executescript("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE x (y);")
        locks.append(lock)

    yield hang
    for lock in locks:
        lock.close()


KILLED_IN_THE_MIDDLE = """
import asyncio, os, signal, sys
from pathlib import Path
from reconciler.local.sqlite_store import SqliteStore
from reconciler.core.record import Record, State
async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    at = 0
    while True:
        at += 1
        index = store.next_index()
        for name in ("a", "b", "c"):
            store.save(name, Record(State.Active, float(at), "in use", index, "127.64.0.1:18001"))
        if at % 50 == 0:
            print(index, flush=True)
        await asyncio.sleep(0)
asyncio.run(main())
"""


async def test_store_sigkill_leaves_consistent_file(path: Path) -> None:
    highest = 0
    records: dict[str, Record] = {}
    for lines in (1, 3, 10, 30, 100, 300):  # the first may be killed before it writes a record
        if records and lines > 10:
            break
        child = Popen([sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(path)], stdout=PIPE, cwd=os.getcwd())
        assert child.stdout
        given = [int(child.stdout.readline()) for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        given += map(int, child.stdout.read().splitlines())
        child.wait()
        child.stdout.close()
        assert given[0] > highest, "no number is given out twice"
        highest = given[-1]
        store = await opened(path)
        records = store.records()
        assert store.set_aside is None and set(records) <= {"a", "b", "c"}
        assert store.next_index() > highest
        await store.close()
        highest = store.next_index()
    assert records
