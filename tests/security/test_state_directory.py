"""Attacks by another user on the state directory of `zenvoy up`, run as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.local import private_files
from reconciler.local.private_files import NotPrivate, make_directory
from reconciler.local.processes.mark import mark, read_mark
from reconciler.local.processes.procfs import boot_id, process_info, run_id
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, ZENVOY, Zenvoy, quick, request

STRANGER = 65_534
"""The user id of `nobody`: another user than the one that runs zenvoy."""
AS_STRANGER = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups")
SECONDS = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """Provide a folder that every user can reach, as the parents of pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="zenvoy-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """Provide a process that has nothing to do with zenvoy."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def plant_note(state_dir: Path, process: subprocess.Popen[bytes]) -> None:
    """Write a note as if the process belonged to a service, which is not in the services file."""
    seen = process_info(process.pid)
    assert seen
    note = {"boot": boot_id(), "pid": process.pid, "started_ticks": seen.started_ticks, "port": 1, "digest": ""}
    (state_dir / "processes").mkdir(mode=0o700)
    (state_dir / "processes" / "gone.json").write_text(json.dumps(note))


def services(folder: Path) -> Path:
    file = folder / "services.yaml"
    service = {"name": "db", "protocol": "tcp", "listen": f"{LOCAL}:1", "command": "sleep {port}"}
    file.write_text(json.dumps({"services": [service]}))
    return file


def refusal(file: Path, state_dir: Path) -> str:
    """Return the error of `up`, which must not start."""
    command = [str(ZENVOY), "up", str(file), "--state-dir", str(state_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_state_directory_of_another_user_is_refused(folder: Path, victim: subprocess.Popen[bytes]) -> None:
    state_dir, target = folder / "planted", folder / "target"
    state_dir.mkdir()
    target.write_text("precious")
    for name in ("bootstrap.json", "last-good.yaml", "holder-port", "lock", "processes.lock"):
        (state_dir / name).symlink_to(target)
    plant_note(state_dir, victim)
    (state_dir / "typer.py").write_text(f"open({str(folder / 'imported')!r}, 'w')")
    for path in (state_dir, *state_dir.rglob("*")):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    words = f"{state_dir} belongs to nobody, and zenvoy runs as root; choose another"
    assert words in refusal(services(folder), state_dir)
    assert victim.poll() is None
    assert target.read_text() == "precious"
    assert not (folder / "imported").exists()


@pytest.mark.parametrize(
    ("mode", "owner", "words"),
    [(0o777, 0, "is writable by other users (mode 0777)"), (0o755, STRANGER, "belongs to nobody")],
    ids=["writable", "foreign"],
)
def test_state_directory_writable_by_others_is_refused(folder: Path, mode: int, owner: int, words: str) -> None:
    path = folder / "state"
    path.mkdir()
    path.chmod(mode)
    os.chown(path, owner, owner)
    with pytest.raises(NotPrivate) as refused:
        make_directory(path)
    assert words in str(refused.value)
    assert "--state-dir" in str(refused.value)


@pytest.mark.parametrize("parent", ["foreign", "writable", "link", "link to a foreign one"])
def test_state_directory_replaceable_by_others_is_refused(folder: Path, parent: str) -> None:
    place = folder / "parent"
    place.mkdir()
    if parent == "foreign":
        os.chown(place, STRANGER, STRANGER)
    elif parent == "writable":
        place.chmod(0o777)
    else:
        sticky = folder / "sticky"
        sticky.mkdir()
        sticky.chmod(0o1777)
        if parent == "link":
            (sticky / "link").symlink_to(place)
            os.chown(sticky / "link", STRANGER, STRANGER, follow_symlinks=False)
        else:
            os.chown(place, STRANGER, STRANGER)
            (sticky / "link").symlink_to(place)
        place = sticky / "link"
    with pytest.raises(NotPrivate):
        make_directory(place / "state")
    assert not (folder / "parent" / "state").exists()


def test_state_directory_in_a_sticky_one_is_accepted(folder: Path) -> None:
    folder.chmod(0o1777)
    make_directory(folder / "deep" / "state")
    assert stat.S_IMODE((folder / "deep").stat().st_mode) == 0o700


def test_state_directory_symlink_inside_is_not_followed(folder: Path) -> None:
    target = folder / "target"
    target.write_text("precious")
    for name in ("file", "file.new"):
        (folder / name).symlink_to(target)
    for attempt in (private_files.read, private_files.open_file, private_files.lock):
        with pytest.raises(OSError, match="symbolic links"):
            attempt(folder / "file")
    private_files.write(folder / "file", b"ours")
    assert not (folder / "file").is_symlink()
    assert target.read_text() == "precious"


def modes_of(folder: Path) -> dict[Path, int]:
    """Return the mode of a folder and all that is in it, but for files that are renamed or deleted meanwhile."""
    modes = {folder: folder.lstat().st_mode}
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            with suppress(FileNotFoundError):
                modes[path] = path.lstat().st_mode
    return modes


def test_state_directory_content_is_private(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": ["sh", "-c", 'umask > umask; exec "$@"', "sh", *quick("http")]}, start=False)
    before = os.umask(0)
    try:
        z.start()
    finally:
        os.umask(before)
    assert request(z.http_port, "web").status == 200
    modes = modes_of(z.state_dir)
    assert len(modes) > 10
    right = {path: 0o700 if stat.S_ISDIR(mode) else 0o600 for path, mode in modes.items()}
    assert {path: oct(mode) for path, mode in modes.items() if stat.S_IMODE(mode) != right[path]} == {}
    assert (z.directory / "umask").read_text() == "0000\n", "the umask of services is the user's"


def test_state_directory_modules_are_not_imported(zenvoy: Start, tmp_path: Path) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, start=False)
    z.state_dir.mkdir(mode=0o700)
    imported = tmp_path / "imported"
    for name in ("reconciler", "tproxy", "typer", "asyncio", "structlog", "sitecustomize"):
        (z.state_dir / f"{name}.py").write_text(f"open({str(imported)!r}, 'a').write({name!r})")
    z.start()
    assert request(z.http_port, "web").status == 200
    assert not imported.exists()


def test_state_directory_planted_files_end_no_other_process(zenvoy: Start, victim: subprocess.Popen[bytes]) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, start=False, defaults=QUICK)
    z.state_dir.mkdir(mode=0o700)
    plant_note(z.state_dir, victim)
    z.start()
    assert z.stop() == 0
    assert victim.poll() is None


def test_process_of_a_service_carries_its_mark(zenvoy: Start) -> None:
    """The note of one that does counts: it is adopted, not started a second time."""
    z = zenvoy({"name": "web", "command": quick("http")}, defaults={**QUICK, "idleAfter": "10m"})
    z.wake("web")
    (pid,) = z.service_pids("web")
    assert read_mark(pid) == mark(run_id(z.state_dir), "web")
    z.kill("up")
    assert z.process
    z.process.wait()
    z.start()
    assert z.service_pids("web") == [pid]


def test_sockets_refuse_another_user(folder: Path) -> None:
    z = Zenvoy(folder / "z", {"services": [{"name": "web", "command": quick("http")}]})
    with z:
        z.state_dir.chmod(0o755)
        for name in ("control.sock", "reconciler.sock", "envoy.sock"):
            tries = f"import socket; socket.socket(socket.AF_UNIX).connect({str(z.state_dir / name)!r})"
            command = [*AS_STRANGER, "/usr/bin/python3", "-c", tries]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert "PermissionError" in done.stderr, done
            with socket.socket(socket.AF_UNIX) as ours:
                ours.connect(str(z.state_dir / name))
