"""Files that are written on a full disk: real files, and a real full disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.local.spare_files import SPARE_BYTES, SpareFiles
from tests.soak.surroundings import SmallDisk


def test_spare_files_replace_a_file(tmp_path: Path) -> None:
    files, path = SpareFiles(tmp_path / "spare", 2), tmp_path / "note"
    for content in (b"first, which is longer", b"second"):
        files.write(path, content)
        assert path.read_bytes() == content.ljust(SPARE_BYTES)
    assert path.stat().st_nlink == 1 and path.stat().st_mode & 0o777 == 0o600


def test_spare_files_are_used_again(tmp_path: Path) -> None:
    files = SpareFiles(tmp_path / "spare", 2)
    for number in range(20):
        files.write(tmp_path / f"note{number % 3}", b"x")
        files.delete(tmp_path / f"note{(number + 1) % 3}")
        assert len(list((tmp_path / "spare").iterdir())) <= 2
    files.delete(tmp_path / "never written")


def test_spare_files_take_content_of_any_length(tmp_path: Path) -> None:
    files, path, content = SpareFiles(tmp_path / "spare", 2), tmp_path / "note", b"x" * 3 * SPARE_BYTES
    files.write(path, content)
    assert path.read_bytes() == content
    files.write(path, b"short")
    files.delete(path)
    files.write(path, b"shorter")
    assert path.read_bytes() == b"shorter".ljust(SPARE_BYTES)


def test_spare_file_in_use_is_not_overwritten(tmp_path: Path) -> None:
    SpareFiles(tmp_path / "spare", 2).write(tmp_path / "note", b"kept")
    for number in range(4):  # the process ended between the two steps of a write
        (tmp_path / "spare" / str(number)).unlink(missing_ok=True)
        os.link(tmp_path / "note", tmp_path / "spare" / str(number))
    files = SpareFiles(tmp_path / "spare", 2)
    for number in range(4):
        files.write(tmp_path / f"other{number}", b"new")
    assert (tmp_path / "note").read_bytes() == b"kept".ljust(SPARE_BYTES)


@pytest.mark.root
def test_spare_files_are_written_on_a_full_disk(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "state") as disk:
        state = tmp_path / "state"
        files = SpareFiles(state / "spare", 4)
        files.write(state / "before", b"1")
        disk.fill()
        for number in range(50):
            files.write(state / "before", str(number).encode())
            files.write(state / "after", str(number).encode())
            disk.fill()  # what was freed is used by others at once
        assert (state / "before").read_bytes().strip() == (state / "after").read_bytes().strip() == b"49"
        files.write(state / "third", b"1")
        files.write(state / "fourth", b"1")
        with pytest.raises(OSError, match="No space left"):
            files.write(state / "fifth", b"1")
        files.delete(state / "third")
        files.write(state / "fifth", b"1")
        assert (state / "fifth").read_bytes().strip() == b"1"
