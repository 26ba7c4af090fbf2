"""Records survive the process, whatever ends it."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run

import structlog

from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.core.record import Record, State

ASLEEP = Record(State.ScaledToZero, 12.5, "idle for all of idleAfter", 3, "127.64.0.1:18001", zeroed=True)
STALLED = Record(State.Waking, 99.0, "somebody waits", 1, "127.64.0.2:18001", stalled="exited with code 1")


def test_what_was_saved_is_there_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    store.save("web", STALLED)
    store.save("web", ASLEEP)
    store.save("db", STALLED)
    store.save("gone", ASLEEP)
    store.pause("gone", True)
    store.forget("gone")
    store.pause("db", True)
    store.pause("web", True)
    store.pause("web", False)
    store.close()
    again = SqliteStore(tmp_path / "records.db")
    assert again.records() == {"web": ASLEEP, "db": STALLED}
    assert again.paused() == {"db"}
    again.close()


def test_numbers_are_never_given_out_twice(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    first = [store.next_index() for _ in range(3)]
    store.close()
    again = SqliteStore(tmp_path / "records.db")
    assert [*first, again.next_index()] == [1, 2, 3, 4]
    again.close()


def test_what_a_full_disk_did_not_take_is_saved_with_the_next(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    store.save("gone", ASLEEP)
    pages = store._database.execute("PRAGMA max_page_count").fetchone()[0]
    store._database.execute("PRAGMA max_page_count = 1")
    large = replace(STALLED, stalled="x" * 10_000)
    with structlog.testing.capture_logs() as lines:
        store.save("web", large)
        store.save("web", replace(large, since=100.0))
        store.forget("gone")
    assert len(lines) == 3
    assert "full" in lines[-1]["error"]
    assert store.records() == {"gone": ASLEEP}
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    store.save("db", ASLEEP)
    assert store.records() == {"web": replace(large, since=100.0), "db": ASLEEP}
    store.close()


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.core.record import Record, State
store = SqliteStore(Path(sys.argv[1]))
store.save("web", Record(State.Active, 1.0, "in use", 2, "127.64.0.1:18001"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_record_survives_sigkill_right_after_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    done = run([sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(path)], check=False, cwd=os.getcwd())
    assert done.returncode == -signal.SIGKILL
    store = SqliteStore(path)
    assert store.records()["web"].replicas == 2
    store.close()
