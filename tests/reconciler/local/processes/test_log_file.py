"""Log files of programs that run: rotation while a descriptor appends to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.local.processes.log_file import ROTATE_BYTES, LogFile
from tests.soak.surroundings import SmallDisk


def test_rotate_moves_content_while_a_program_appends(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "web.log")
    program = log.open()
    try:
        os.write(program, b"first\n")
        log.rotate()
        assert (tmp_path / "web.log").read_bytes() == b"first\n", "a small file stays"
        os.write(program, b"x" * ROTATE_BYTES)
        log.rotate()
        os.write(program, b"later\n")
    finally:
        os.close(program)
    assert (tmp_path / "web.log").read_bytes() == b"later\n"
    assert (tmp_path / "web.log.1").stat().st_size == ROTATE_BYTES + len(b"first\n")
    assert (tmp_path / "web.log.1").stat().st_mode & 0o777 == 0o600
    assert log.last_lines() == "later"


def test_rotate_that_fails_keeps_the_content(tmp_path: Path) -> None:
    (tmp_path / "web.log.1").mkdir()
    log = LogFile(tmp_path / "web.log")
    program = log.open()
    os.write(program, b"x" * ROTATE_BYTES + b"\nlast\n")
    os.close(program)
    log.rotate()
    assert log.last_lines().endswith("last")


@pytest.mark.root
def test_open_on_a_full_disk_discards_the_output(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "logs") as disk:
        disk.fill()
        program = LogFile(tmp_path / "logs" / "web.log").open()
        try:
            assert os.write(program, b"a program that runs\n") > 0
        finally:
            os.close(program)
        assert (tmp_path / "logs" / "web.log").read_bytes() == b""
