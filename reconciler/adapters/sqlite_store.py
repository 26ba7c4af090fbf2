"""Records in one SQLite file. Counterpart: `reconciler.ports.store`.

Write-ahead log, and no sync at each commit: a record survives the process, whatever ends it. After a power cut the last
few may be old, which costs a service a needless wake or wait, never a connection: the rest is observed again.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from reconciler.core.record import Record

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
        self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + SCHEMA)

    def close(self) -> None:
        self._database.close()

    def records(self) -> dict[str, Record]:
        rows = self._database.execute("SELECT service, record FROM record")
        return {service: msgspec.json.decode(record, type=Record) for service, record in rows}

    def save(self, service: str, record: Record) -> None:
        self._database.execute("INSERT OR REPLACE INTO record VALUES (?, ?)", (service, msgspec.json.encode(record)))

    def forget(self, service: str) -> None:
        self._database.execute("DELETE FROM record WHERE service = ?", (service,))
        self.pause(service, False)

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
