"""A records.db that is damaged, locked or cannot be written stops no wake, and is reported."""

from __future__ import annotations

import json
import sqlite3

from tests.e2e.conftest import Start
from tests.e2e.harness import SLOW_TO_SLEEP, Zenvoy, quick, request, until


def _doctor(z: Zenvoy) -> str:
    return str(z.cli("doctor").stdout)


def test_records_damaged_stop_no_wake(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=SLOW_TO_SLEEP)
    z.ask("POST", "/v1/services/web/pause")
    assert z.stop() == 0
    path = z.state_dir / "records.db"
    path.write_bytes(b"\0\xff" * 10_000)
    z.start()
    assert request(z.http_port, "web", "/a").body == b"web /a\n"
    [kept] = z.state_dir.glob("records.db.2*")
    assert kept.read_bytes() == b"\0\xff" * 10_000
    said = _doctor(z)
    assert "RecordsSetAside" in said and kept.name in said
    assert z.stop() == 0
    z.start()
    assert z.status("web")["replicas"] is not None and "no problems, no notes" in _doctor(z)


def test_records_locked_stop_no_wake(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=SLOW_TO_SLEEP)
    z.asleep("web")
    path = z.state_dir / "records.db"
    until("its record is written", lambda: _recorded(path) == {"web": "ScaledToZero"})
    lock = sqlite3.connect(path, isolation_level=None)
    try:
        lock.execute("BEGIN IMMEDIATE")
        z.kill("reconciler")
        assert request(z.http_port, "web", "/a").body == b"web /a\n"
        z.wait_state("web", "Active", "Idle")
        text = _doctor(z)
        assert "RecordsNotWritten" in text and "database is locked" in text
    finally:
        lock.close()
    until("its record is written", lambda: _recorded(path).get("web") in ("Active", "Idle"))
    assert "no problems" in _doctor(z)


def _recorded(path: object) -> dict[str, str]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT service, record FROM record").fetchall()
        return {service: json.loads(record)["state"] for service, record in rows}
    except sqlite3.Error:
        return {}
    finally:
        database.close()
