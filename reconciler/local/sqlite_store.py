"""Records in one SQLite file, written by a thread of their own. Counterpart: `reconciler.ports.store`.

Every call is answered from memory: no caller waits for a disk, and a wake goes out before its record is written. Of
each service only the latest record waits to be written, so that a disk that hangs costs no more memory than there are
services. What cannot be written is reported and tried again.

A file that is damaged or cannot be read is set aside under a name with the time, and services start as if seen for the
first time. One that another process has locked, or that does not answer in time, stays where it is.

Write-ahead log, one transaction for each round, and no sync at each: the file is consistent whatever ends the process.
After SIGKILL or a power cut the last records may be missing, which costs a needless wake or wait, never a connection:
the rest is observed again.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import stamina
import stamina.instrumentation
import structlog

from reconciler.core.record import Record

log = structlog.get_logger(__name__)
stamina.instrumentation.set_on_retry_hooks([])  # the store reports what failed itself

OPEN_SECONDS = 2.0
"""How long a start waits for the file."""
BUSY_SECONDS = 0.5
CLOSE_SECONDS = 1.0
"""How long an end waits for the disk."""
RETRY_SECONDS = (0.1, 5.0)
BLOCK = 1024
"""Numbers are reserved in blocks, before they are given out: after SIGKILL none is given out twice."""
_NUMBERS = 1 << 22
"""Hold addresses on one machine; what counts from a random one of them meets hardly any that was given out before."""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH)
SCHEMA = """
CREATE TABLE IF NOT EXISTS record (service TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paused (service TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counter VALUES ('hold address', 1);
"""


@dataclass(slots=True)
class Content:
    """What a file holds, or what is to be written to it."""

    records: dict[str, Record | None] = field(default_factory=dict)
    """None: the service has none any more."""
    paused: dict[str, bool] = field(default_factory=dict)
    next_index: int | None = None
    """The first number that no later process may give out; None: unchanged."""


class NotAFile(OSError):
    """Something else has the name of the file."""


class _File:
    """The file, as the thread sees it. Raises `sqlite3.Error` and `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None
        self._inode: int | None = None

    def read(self) -> Content:
        """Return all that is in it, also where it cannot be written."""
        try:
            return _content(self._open())
        except sqlite3.Error as error:
            self.close()
            if _code(error) in _DAMAGED:
                raise
        try:
            return self._read_only("mode=ro")
        except sqlite3.OperationalError as error:
            if _code(error) in _BUSY:
                raise
            return self._read_only("mode=ro&immutable=1")  # mode=ro writes a file beside it, if there is room

    def _read_only(self, how: str) -> Content:
        uri = f"file:{_quoted(self.path)}?{how}"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as database:
            return _content(database)

    def is_same(self) -> bool:
        """Return whether what was opened is what has the name still."""
        if self._database is None:
            return False
        with suppress(OSError):
            return os.stat(self.path, follow_symlinks=False).st_ino == self._inode
        return False

    def write(self, content: Content) -> None:
        """Write all of it, or nothing."""
        database = self._open()
        try:
            database.execute("BEGIN IMMEDIATE")
            for service, record in content.records.items():
                if record is None:
                    database.execute("DELETE FROM record WHERE service = ?", (service,))
                else:
                    row = (service, msgspec.json.encode(record))
                    database.execute("INSERT OR REPLACE INTO record VALUES (?, ?)", row)
            for service, paused in content.paused.items():
                change = "INSERT OR IGNORE INTO paused VALUES (?)" if paused else "DELETE FROM paused WHERE service = ?"
                database.execute(change, (service,))
            if content.next_index is not None:
                database.execute("UPDATE counter SET next = ? WHERE name = 'hold address'", (content.next_index,))
            database.execute("COMMIT")
        except sqlite3.Error:
            self.close()
            raise

    def set_aside(self) -> Path | None:
        """Rename it and what belongs to it; return the new name, None where that cannot be done."""
        self.close()
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = self.path.with_name(f"{self.path.name}.{moment}")
        try:
            self.path.rename(aside)
        except OSError as error:
            log.error("the file with the records cannot be set aside", file=str(self.path), error=str(error))
            return None
        for suffix in ("-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        return aside

    def close(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise NotAFile(f"{self.path} is not a regular file")
        database = sqlite3.connect(
            f"file:{_quoted(self.path)}", uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=True
        )
        try:
            with suppress(OSError):  # of somebody else, or on a disk that cannot be written
                self.path.chmod(0o600)
            database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + SCHEMA)
            self._inode = os.stat(self.path).st_ino
        except BaseException:
            database.close()
            raise
        self._database = database
        return database


class SqliteStore:
    """Keeps records in memory, and in a file behind it. `open` comes first; `close` writes what is left."""

    def __init__(self, path: Path) -> None:
        self._file = _File(path)
        self._lock = threading.Lock()
        self._stirred = threading.Event()
        self._records: dict[str, Record] = {}
        self._paused: set[str] = set()
        self._next, self._reserved = random.randrange(1, _NUMBERS), 0
        self._unsaved, self._in_flight = Content(), 0
        self._loaded, self._ended = threading.Event(), threading.Event()
        self._closing = False
        self.failing: str | None = None
        """Why records are not being written, for people; None while they are."""
        self.set_aside: str | None = None
        """What was set aside since the start, and why; None: nothing."""
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)

    async def open(self) -> None:
        """Read the file, for `OPEN_SECONDS` at most: without it, services are seen for the first time."""
        self._thread.start()
        if not await _until(self._loaded, OPEN_SECONDS):
            with self._lock:
                self.failing = self.failing or "it does not answer"
                self._loaded.set()
            log.error("start without records: the disk does not answer in time", file=str(self._file.path))

    async def close(self) -> None:
        """Write what is left, for `CLOSE_SECONDS` at most."""
        self._closing = True
        self._stirred.set()
        if self._thread.is_alive() and not await _until(self._ended, CLOSE_SECONDS):
            log.error("records are lost: the disk does not take them", services=self.unsaved)

    @property
    def unsaved(self) -> int:
        """Services whose latest record is not in the file yet."""
        with self._lock:
            return len(self._unsaved.records) + self._in_flight

    def records(self) -> dict[str, Record]:
        with self._lock:
            return dict(self._records)

    def save(self, service: str, record: Record) -> None:
        with self._lock:
            self._records[service] = self._unsaved.records[service] = record
        self._stirred.set()

    def forget(self, service: str) -> None:
        with self._lock:
            self._records.pop(service, None)
            self._paused.discard(service)
            self._unsaved.records[service] = None
            self._unsaved.paused[service] = False
        self._stirred.set()

    def paused(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._paused)

    def pause(self, service: str, paused: bool) -> None:
        with self._lock:
            (self._paused.add if paused else self._paused.discard)(service)
            self._unsaved.paused[service] = paused
        self._stirred.set()

    def next_index(self) -> int:
        with self._lock:
            number, self._next = self._next, self._next + 1
            if self._next + BLOCK // 2 > self._reserved:
                self._reserve()
        return number

    # In the thread.

    def _run(self) -> None:
        try:
            self._load()
            while not self._closing:
                self._stirred.wait()
                try:
                    self._write_all()
                except Exception as error:  # a fault of ours: the next record is another attempt
                    self._report(error)
            with self._lock:
                self._unsaved.next_index = self._next  # none of the block is left over
            self._write_all()
            self._file.close()
        finally:
            self._loaded.set()
            self._ended.set()

    def _load(self) -> None:
        try:
            content: Content | None = self._file.read()
        except (sqlite3.Error, OSError, ValueError) as error:
            self._unreadable(error)
            content = None
        with self._lock:
            late = self._loaded.is_set()
            if content is not None:
                self._paused |= content.paused.keys() - self._unsaved.paused.keys()
                if not late:
                    self._records = {name: record for name, record in content.records.items() if record}
                    self._next = content.next_index or self._next
            self._reserve()
        self._write_all(once=True)
        with self._lock:
            if self.failing and not self._loaded.is_set():  # the same numbers could be given out after the next start
                self._next = random.randrange(1, _NUMBERS)
                self._reserve()
        self._loaded.set()

    def _reserve(self) -> None:
        """Have numbers reserved; the lock is ours."""
        self._reserved = self._unsaved.next_index = self._next + BLOCK
        self._stirred.set()

    def _unreadable(self, error: Exception) -> None:
        """Set the file aside, but for one that is in use by another process: that could still write to it."""
        code = _code(error)
        if code in _BUSY:
            self._failed(error)
            return
        name = self._file.set_aside()
        if name is not None:
            self.set_aside = f"{name.name}: {error}"
        log.error(
            "records cannot be read; services start as if seen for the first time", error=str(error), kept=str(name)
        )

    def _write_all(self, once: bool = False) -> None:
        """Write what is unsaved, again and again until it is written, or `close` was called."""
        first, longest = RETRY_SECONDS
        retries = stamina.retry_context(
            on=self._failed, attempts=None, timeout=None, wait_initial=first, wait_max=longest, wait_jitter=first
        )
        with suppress(sqlite3.Error, OSError):
            for attempt in retries:
                with attempt:
                    self._write(once)

    def _write(self, once: bool) -> None:
        self._stirred.clear()
        if not (is_same := self._file.is_same()):
            self._file.close()
        with self._lock:
            content, self._unsaved = self._unsaved, Content()
            if not is_same:
                content = self._everything(content)
            self._in_flight = len(content.records)
        try:
            if content != Content():
                self._file.write(content)
            self.failing, self._in_flight = None, 0
        except Exception as error:
            self._put_back(content)
            if _code(error) in _DAMAGED or isinstance(error, NotAFile):
                self._unreadable(error)
            if once or self._closing:
                self._failed(error)
                return
            raise

    def _everything(self, unsaved: Content) -> Content:
        """What a file needs that may be another one; the lock is ours."""
        gone = {name: None for name, record in unsaved.records.items() if record is None}
        paused = {**unsaved.paused, **dict.fromkeys(self._paused, True)}
        return Content({**gone, **self._records}, paused, max(self._reserved, unsaved.next_index or 0))

    def _put_back(self, content: Content) -> None:
        """Have unsaved again what could not be written, but for what is newer."""
        with self._lock:
            self._in_flight, newer = 0, self._unsaved
            newer.records = {**content.records, **newer.records}
            newer.paused = {**content.paused, **newer.paused}
            newer.next_index = newer.next_index or content.next_index

    def _failed(self, error: Exception) -> bool:
        """Report a failure; return whether to try again."""
        self._report(error)
        return isinstance(error, sqlite3.Error | OSError) and not self._closing

    def _report(self, error: Exception) -> None:
        """Report a failure, once for each reason."""
        if self.failing != str(error):
            self.failing = str(error)
            log.error("records cannot be written; they are kept in memory, and written later", error=str(error))


def _content(database: sqlite3.Connection) -> Content:
    records = {}
    for service, encoded in database.execute("SELECT service, record FROM record"):
        try:
            records[service] = msgspec.json.decode(encoded, type=Record)
        except (msgspec.DecodeError, TypeError) as error:
            log.error("a record cannot be read; its service starts as if seen for the first time", error=str(error))
    paused = {service: True for (service,) in database.execute("SELECT service FROM paused")}
    row = database.execute("SELECT next FROM counter WHERE name = 'hold address'").fetchone()
    return Content(dict(records), paused, int(row[0]) if row else None)


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; 0 for other errors, and for what Python's module raises itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _quoted(path: Path) -> str:
    """Return a path as it may stand in a URI."""
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


async def _until(event: threading.Event, seconds: float) -> bool:
    """Wait for a thread's event without blocking the loop, and without a thread that would have to end first."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not event.is_set() and loop.time() < end:
        await asyncio.sleep(0.002)
    return event.is_set()
