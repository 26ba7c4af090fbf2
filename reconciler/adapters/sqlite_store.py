"""Records in one SQLite file. Counterpart: `reconciler.ports.store`.

Write-ahead log, and no sync at each commit: a record survives the process, whatever ends it. After a power cut the last
few may be old, which costs a service a needless wake or wait, never a connection: the rest is observed again. For the
same reason nobody has to wait while the disk takes nothing: what could not be saved is saved with the next that can.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import structlog

from reconciler.core.record import Record

log = structlog.get_logger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS record (service TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paused (service TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counter VALUES ('hold address', 1);
"""


class SqliteStore:
    """Raises `sqlite3.DatabaseError` when the file is not a database of ours."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + SCHEMA)
        self._unsaved: dict[str, Record | None] = {}
        """What is to be on disk, and is not; None: nothing of that service."""

    def close(self) -> None:
        self._write()
        self._database.close()

    def records(self) -> dict[str, Record]:
        rows = self._database.execute("SELECT service, record FROM record")
        return {service: msgspec.json.decode(record, type=Record) for service, record in rows}

    def save(self, service: str, record: Record) -> None:
        self._unsaved[service] = record
        self._write()

    def forget(self, service: str) -> None:
        self._unsaved[service] = None
        self._write()

    def paused(self) -> frozenset[str]:
        return frozenset(service for (service,) in self._database.execute("SELECT service FROM paused"))

    def pause(self, service: str, paused: bool) -> None:
        change = "INSERT OR IGNORE INTO paused VALUES (?)" if paused else "DELETE FROM paused WHERE service = ?"
        self._database.execute(change, (service,))

    def next_index(self) -> int:
        row = self._database.execute(
            "UPDATE counter SET next = next + 1 WHERE name = 'hold address' RETURNING next - 1"
        )
        return int(row.fetchone()[0])

    def _write(self) -> None:
        try:
            for service, record in list(self._unsaved.items()):
                if record is None:
                    self._database.execute("DELETE FROM record WHERE service = ?", (service,))
                    self.pause(service, False)
                else:
                    row = (service, msgspec.json.encode(record))
                    self._database.execute("INSERT OR REPLACE INTO record VALUES (?, ?)", row)
                del self._unsaved[service]
        except sqlite3.Error as error:
            log.error("records cannot be saved; it is tried again", services=len(self._unsaved), error=str(error))
