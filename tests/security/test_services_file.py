"""Hostile services files: each is a problem with its place, and nothing else happens."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import NoReturn

import pytest

from reconciler.core.address import Address
from reconciler.local.file_watch import last_good, load
from reconciler.local.services_file import ServicesFile, read
from reconciler.local.services_file.model import MAX_PROBLEMS, MAX_WORDS
from tests.security.hostile_files import HOSTILE


@pytest.mark.parametrize("case", HOSTILE)
def test_services_file_hostile_gives_bounded_problems(tmp_path: Path, case: str) -> None:
    path = tmp_path / "services.yaml"
    path.write_bytes(HOSTILE[case].encode(errors="surrogateescape"))
    found = read(path)
    assert isinstance(found, list) and found
    assert len(found) <= MAX_PROBLEMS
    for problem in found:
        assert str(problem).isprintable()
        assert len(problem.what) <= 2 * MAX_WORDS
        assert "fault of zenvoy" not in problem.what, "a bound or a check has to find it"
        assert problem.file == str(path)
    assert not (tmp_path / "owned").exists()


def test_services_file_device_is_read_within_the_bound() -> None:
    tracemalloc.start()
    found = read(Path("/dev/zero"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, list)
    [problem] = found
    assert "MiB" in str(problem)
    assert peak < 64 * 2**20


def test_services_file_unforeseen_failure_is_a_problem(tmp_path: Path) -> None:
    class Broken(dict[str, Address]):
        def items(self) -> NoReturn:
            raise RecursionError("maximum recursion depth exceeded")

    path = tmp_path / "services.yaml"
    path.write_text('listen: {http: "127.0.0.1:10000"}\nservices: [{name: web, command: [sh, "{port}"]}]')
    found = read(path, taken=Broken())
    assert isinstance(found, list)
    [problem] = found
    assert "RecursionError" in str(problem) and "undo the latest change" in str(problem)


def test_last_good_copy_symlink_is_not_read(tmp_path: Path) -> None:
    file, copy = tmp_path / "services.yaml", tmp_path / "last-good.yaml"
    file.write_text('listen: {http: "127.0.0.1:10000"}\nservices: [{name: web, command: [sh, "{port}"]}]')
    assert isinstance(load(file, copy, {}), ServicesFile)
    assert isinstance(last_good(file, copy, {}), ServicesFile)
    assert copy.stat().st_mode & 0o777 == 0o600
    content = copy.read_bytes()
    copy.unlink()
    foreign = tmp_path / "foreign"
    foreign.write_bytes(content)
    copy.symlink_to(foreign)
    assert last_good(file, copy, {}) is None
    assert isinstance(load(file, copy, {}), ServicesFile)
    assert not copy.is_symlink() and foreign.read_bytes() == content, "it is replaced, and not written through"
    assert last_good(file, tmp_path, {}) is None
