"""Accounts: their environment, and their access to real files by mode."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.validation import user_problem
from reconciler.local.account import Account, AccountError, account_of, find_account

OTHER = Account("other", 4_000_000, 4_000_001, (4_000_001, 4_000_002), "/home/other", "/bin/sh")
ROOT = Account("root", 0, 0, (0,))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that every account may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def seen(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "may"),
    [
        (0o700, 0, 0, False),
        (0o701, 0, 0, True),
        (0o700, 4_000_000, 0, True),
        (0o077, 4_000_000, 0, False),
        (0o710, 0, 4_000_001, True),
        (0o710, 0, 4_000_002, True),
        (0o707, 0, 4_000_002, False),
        (0o710, 0, 4_000_003, False),
    ],
)
def test_access_follows_mode_owner_and_groups(mode: int, uid: int, gid: int, may: bool) -> None:
    assert OTHER.may_execute(seen(stat.S_IFDIR | mode, uid, gid)) is may


def test_root_enters_all_and_executes_executables() -> None:
    assert ROOT.may_execute(seen(stat.S_IFDIR, 1))
    assert ROOT.may_execute(seen(stat.S_IFREG | 0o010, 1))
    assert not ROOT.may_execute(seen(stat.S_IFREG | 0o666, 1))


def test_obstacle_is_the_first_closed_place(folder: Path) -> None:
    program = folder / "closed" / "bin" / "serve"
    program.parent.mkdir(parents=True)
    program.touch()
    for made in (program, program.parent, folder / "closed"):
        made.chmod(0o755)  # an earlier test may have changed the umask
    (folder / "serve").symlink_to(program)
    assert OTHER.obstacle(program) is None
    program.chmod(0o744)
    assert OTHER.obstacle(program) == program
    (folder / "closed").chmod(0o700)
    assert OTHER.obstacle(program) == folder / "closed"
    assert OTHER.obstacle(folder / "serve") == folder / "closed", "the target of a link counts, too"
    assert OTHER.obstacle(folder / "missing") is None


def test_environment_is_that_of_the_account() -> None:
    inherited = {"PATH": "/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/root", "TOKEN": "secret"}
    known = {"PATH": "/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    own = {"HOME": "/home/other", "USER": "other", "LOGNAME": "other", "SHELL": "/bin/sh"}
    assert OTHER.environment(inherited) == {**known, **own}
    service = Account("service", 7, 7, (7,), "/", "/usr/sbin/nologin")
    assert "SHELL" not in service.environment({"SHELL": "/bin/bash"})


def test_account_is_found_by_name_and_number() -> None:
    root = find_account("root")
    assert root is not None and (root.uid, root.gid) == (0, 0) and 0 in root.groups
    assert find_account("0") == root
    for unknown in ("", "no-such-user", "a\0b", "\ud800", "4000000000", "9" * 30):
        assert find_account(unknown) is None


def test_user_problem_depends_on_who_runs_zenvoy() -> None:
    assert user_problem("user", "web", 7, own=0) is None
    assert user_problem("user", "web", 7, own=7) is None
    refused = user_problem("services[0].user", "web", 7, own=1000)
    assert refused and "only root can start" in refused.message and "run zenvoy up as root" in refused.remedy
    unknown = user_problem("services[0].user", "wbe", None, own=0)
    assert unknown and "does not exist" in unknown.message


def test_account_of_unknown_user_is_refused(folder: Path) -> None:
    for unknown in ("", "no-such-user"):
        with pytest.raises(AccountError, match="does not exist"):
            account_of(unknown, folder)
