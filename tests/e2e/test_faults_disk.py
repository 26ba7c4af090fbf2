"""A records.db that is damaged, locked or cannot be written stops no wake, and is reported."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from reconciler.local.processes.procfs import children_of, run_id
from tests.e2e.conftest import Start
from tests.e2e.harness import PATIENCE_SECONDS, SLOW_TO_SLEEP, Zenvoy, quick, request, until
from tests.soak.surroundings import SmallDisk


def _doctor_reports(z: Zenvoy, *words: str) -> None:
    """Wait until `zenvoy doctor` reports all of these words at once."""

    def reports() -> bool:
        said = z.cli("doctor").stdout
        return all(word in said for word in words)

    until(f"`zenvoy doctor` reports {words}", reports)


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
    _doctor_reports(z, "RecordsSetAside", kept.name)
    assert z.stop() == 0
    z.start()
    z.wait_status("its replicas are known", "web", lambda view: view["replicas"] is not None)
    _doctor_reports(z, "no problems, no notes")


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
        _doctor_reports(z, "RecordsNotWritten", "database is locked")
    finally:
        lock.close()
    until("its record is written", lambda: _recorded(path).get("web") in ("Active", "Idle"))
    _doctor_reports(z, "no problems")


@pytest.mark.root
def test_up_starts_again_on_a_full_disk(zenvoy: Start, tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "z0" / "state") as disk:
        z = zenvoy({"name": "web", "command": quick("http")}, defaults=SLOW_TO_SLEEP, start=False)
        disk.fill()
        z.start(wait=False)
        assert z.process and z.process.wait(PATIENCE_SECONDS) == 1
        wrong = (
            f"cannot write {z.state_dir / 'bootstrap.json'}: No space left on device; make it writable or free space"
        )
        assert wrong in z.log_path.read_text()
        disk.empty()
        z.start()
        assert z.stop() == 0
        disk.fill()
        z.start()
        assert request(z.http_port, "web", "/a").body == b"web /a\n"
        disk.empty()
        assert z.stop() == 0


def _child(z: Zenvoy, name: str) -> int | None:
    """Return the process id of a child of `up`, whose list is old while the disk is full."""
    return {child: seen.pid for child, seen in children_of(run_id(z.state_dir))}.get(name)


def _recorded(path: object) -> dict[str, str]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT service, record FROM record").fetchall()
        return {service: json.loads(record)["state"] for service, record in rows}
    except sqlite3.Error:
        return {}
    finally:
        database.close()


@pytest.mark.root
def test_full_disk_loses_no_request(zenvoy: Start, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    """A program that was started while the disk was full is adopted by the next reconciler."""
    with SmallDisk(tmp_path / "z0" / "state") as disk:
        z = zenvoy(
            {"name": "web", "command": quick("http")},
            {"name": "other", "command": quick("http")},
            defaults=SLOW_TO_SLEEP,
        )
        disk.fill()
        gate = tmp_path / "answer"
        waiting = pool.submit(request, z.http_port, "web", f"/until{gate}")
        z.wait_line("web is awake", lambda entry: entry.get("service") == "web" and entry.get("target") == "Active")
        [program] = z.service_pids("web")

        def is_new(name: str, killed: int) -> bool:
            return _child(z, name) not in (None, killed)

        for name in ("reconciler", "keeper"):
            disk.fill()
            killed = z.kill(name)
            until("it is started again", partial(is_new, name, killed))
        assert request(z.http_port, "other", "/a").body == b"other /a\n"
        gate.touch()
        assert waiting.result().status == 200
        assert z.service_pids("web") == [program]
        disk.empty()
        assert z.stop() == 0
