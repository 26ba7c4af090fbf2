"""Records in one SQLite file, written by a thread. Implements `reconciler.ports.store.Store`.

Calls are answered from memory: no caller waits for the disk, and a wake does not wait for its record. Only the latest
record of each service is queued, so a disk that hangs does not use more and more memory. Failed writes are retried.

A damaged or unreadable file is renamed with a timestamp, and services start without records. A file that another
process has locked, or that does not answer in time, is left in place.

The file uses a write-ahead log, one transaction per round, and no sync per transaction: it is consistent however the
process ends. After SIGKILL or a power cut the latest records may be missing. That can cost a wake or a wait, never a
connection, since everything else is observed again.
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
stamina.instrumentation.set_on_retry_hooks([])  # the store logs failures itself

OPEN_SECONDS = 2.0
"""Time to read the file at the start."""
BUSY_SECONDS = 0.5
CLOSE_SECONDS = 1.0
"""Time to write the file at the end."""
RETRY_SECONDS = (0.1, 5.0)
BLOCK = 1024
"""Indexes are reserved in blocks before use, so that none is used twice after SIGKILL."""
_NUMBERS = 1 << 22
"""The number of hold addresses. Without a file, indexes start at a random one, so that few are used twice."""
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
    """The content of a file, or the changes to write."""

    records: dict[str, Record | None] = field(default_factory=dict)
    """None: the record is deleted."""
    paused: dict[str, bool] = field(default_factory=dict)
    next_index: int | None = None
    """The first unreserved index; None: unchanged."""


class NotAFile(OSError):
    """The path is not a regular file."""


class _File:
    """The file, used by the thread. Raises `sqlite3.Error` and `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None
        self._inode: int | None = None

    def read(self) -> Content:
        """Return its content, even if it cannot be written."""
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
            return self._read_only("mode=ro&immutable=1")  # mode=ro creates a second file, if possible

    def _read_only(self, how: str) -> Content:
        uri = f"{self.path.absolute().as_uri()}?{how}"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as database:
            return _content(database)

    def is_same(self) -> bool:
        """Return whether the path still leads to the open file."""
        with suppress(OSError):
            return self._database is not None and os.stat(self.path, follow_symlinks=False).st_ino == self._inode
        return False

    def write(self, content: Content) -> None:
        """Write all changes in one transaction."""
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
        """Rename the file and its companions; return the new path, or None on failure."""
        self.close()
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = self.path.with_name(f"{self.path.name}.{moment}")
        try:
            self.path.rename(aside)
        except OSError as error:
            log.error("failed to rename the file with the records", file=str(self.path), error=str(error))
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
        database = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            with suppress(OSError):  # owned by another user, or read-only
                self.path.chmod(0o600)
            database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + SCHEMA)
            self._inode = os.stat(self.path).st_ino
        except BaseException:
            database.close()
            raise
        self._database = database
        return database


class SqliteStore:
    """Keeps records in memory and writes them to a file. `open` comes first; `close` writes the rest."""

    def __init__(self, path: Path) -> None:
        self._file = _File(path)
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._records: dict[str, Record] = {}
        self._paused: set[str] = set()
        self._next, self._reserved = random.randrange(1, _NUMBERS), 0
        self._unsaved, self._in_flight = Content(), 0
        self._loaded, self._ended = threading.Event(), threading.Event()
        self._closing = False
        self.failing: str | None = None
        """The reason why records are not written; None while they are."""
        self.set_aside: str | None = None
        """The name of a renamed file, with the reason; None: none since the start."""
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)

    async def open(self) -> None:
        """Read the file within `OPEN_SECONDS`; otherwise services start without records."""
        self._thread.start()
        if not await _until(self._loaded, OPEN_SECONDS):
            with self._lock:
                self.failing = self.failing or "the disk does not answer"
                self._loaded.set()
            log.error("starting without records: the disk does not answer in time", file=str(self._file.path))

    async def close(self) -> None:
        """Write the rest within `CLOSE_SECONDS`."""
        self._closing = True
        self._changed.set()
        if self._thread.is_alive() and not await _until(self._ended, CLOSE_SECONDS):
            log.error("records are lost: the disk does not answer in time", services=self.unsaved)

    @property
    def unsaved(self) -> int:
        """The number of services whose latest record is not in the file yet."""
        with self._lock:
            return len(self._unsaved.records) + self._in_flight

    def records(self) -> dict[str, Record]:
        with self._lock:
            return dict(self._records)

    def save(self, service: str, record: Record) -> None:
        with self._lock:
            self._records[service] = self._unsaved.records[service] = record
        self._changed.set()

    def forget(self, service: str) -> None:
        with self._lock:
            self._records.pop(service, None)
            self._paused.discard(service)
            self._unsaved.records[service] = None
            self._unsaved.paused[service] = False
        self._changed.set()

    def paused(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._paused)

    def pause(self, service: str, paused: bool) -> None:
        with self._lock:
            (self._paused.add if paused else self._paused.discard)(service)
            self._unsaved.paused[service] = paused
        self._changed.set()

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
                self._changed.wait()
                try:
                    self._write_all()
                except Exception as error:  # a bug: the next record is another attempt
                    self._report(error)
            with self._lock:
                self._unsaved.next_index = self._next  # release the rest of the block
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
            if self.failing and not self._loaded.is_set():  # the next process could use the same indexes
                self._next = random.randrange(1, _NUMBERS)
                self._reserve()
        self._loaded.set()

    def _reserve(self) -> None:
        """Reserve indexes. Needs the lock."""
        self._reserved = self._unsaved.next_index = self._next + BLOCK
        self._changed.set()

    def _unreadable(self, error: Exception) -> None:
        """Rename the file, unless another process has locked it and could still write to it."""
        if _code(error) in _BUSY:
            self._failed(error)
            return
        name = self._file.set_aside()
        if name is not None:
            self.set_aside = f"{name.name}: {error}"
        log.error("failed to read records; services start without them", error=str(error), kept=str(name))

    def _write_all(self, once: bool = False) -> None:
        """Write unsaved changes, and retry until they are written or `close` is called."""
        first, longest = RETRY_SECONDS
        retries = stamina.retry_context(
            on=self._failed, attempts=None, timeout=None, wait_initial=first, wait_max=longest, wait_jitter=first
        )
        with suppress(sqlite3.Error, OSError):
            for attempt in retries:
                with attempt:
                    self._write(once)

    def _write(self, once: bool) -> None:
        self._changed.clear()
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
        """Return all content, for a file that was replaced. Needs the lock."""
        gone = {name: None for name, record in unsaved.records.items() if record is None}
        paused = {**unsaved.paused, **dict.fromkeys(self._paused, True)}
        return Content({**gone, **self._records}, paused, max(self._reserved, unsaved.next_index or 0))

    def _put_back(self, content: Content) -> None:
        """Queue changes again that were not written, unless there are newer ones."""
        with self._lock:
            self._in_flight, newer = 0, self._unsaved
            newer.records = {**content.records, **newer.records}
            newer.paused = {**content.paused, **newer.paused}
            newer.next_index = newer.next_index or content.next_index

    def _failed(self, error: Exception) -> bool:
        """Log a failure; return whether to retry."""
        self._report(error)
        return isinstance(error, sqlite3.Error | OSError) and not self._closing

    def _report(self, error: Exception) -> None:
        """Log a failure once per reason."""
        if self.failing != str(error):
            self.failing = str(error)
            log.error("failed to write records; keeping them in memory and retrying", error=str(error))


def _content(database: sqlite3.Connection) -> Content:
    records = {}
    for service, encoded in database.execute("SELECT service, record FROM record"):
        try:
            records[service] = msgspec.json.decode(encoded, type=Record)
        except (msgspec.DecodeError, TypeError) as error:
            log.error("failed to read a record; its service starts without it", error=str(error))
    paused = {service: True for (service,) in database.execute("SELECT service FROM paused")}
    row = database.execute("SELECT next FROM counter WHERE name = 'hold address'").fetchone()
    return Content(dict(records), paused, int(row[0]) if row else None)


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; 0 for other errors, and for errors of Python's module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


async def _until(event: threading.Event, seconds: float) -> bool:
    """Wait for an event of a thread without blocking the loop and without a further thread."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not event.is_set() and loop.time() < end:
        await asyncio.sleep(0.002)
    return event.is_set()
