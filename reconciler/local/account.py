"""The account that a program runs as: its ids, groups, environment, and access to files, like systemd's `User=`.

Source: systemd.exec(5), initgroups(3), path_resolution(7).
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.core.validation import user_problem

ACL = "system.posix_acl_access"
KEPT = ("PATH", "LANG", "LANGUAGE", "TZ", "TERM")
"""Variables that programs of another account inherit, with `LC_*`; others can contain secrets or folders of root."""
NO_LOGIN = ("nologin", "false", "true")
MAX_DIGITS = 10


class AccountError(ValueError):
    """A program cannot run as its account; the text is the reason, for people."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account of this machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """The primary group and all others."""
    home: str = "/"
    shell: str = ""

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a program of this account; `inherited` are those of this process."""
        kept = {name: value for name, value in inherited.items() if name in KEPT or name.startswith("LC_")}
        shell = {"SHELL": self.shell} if self.shell and os.path.basename(self.shell) not in NO_LOGIN else {}
        return {**kept, "HOME": self.home, "USER": self.name, "LOGNAME": self.name, **shell}

    def obstacle(self, path: Path) -> Path | None:
        """Return the first folder on the way to a folder or program that it cannot enter or execute, or None.

        Access control lists are not read: a file that has one counts as accessible.
        """
        target = Path(os.path.realpath(path))
        way = dict.fromkeys((*reversed(path.parents), *reversed(target.parents), target))
        return next((place for place in way if not self._is_open(place)), None)

    def credentials(self) -> dict[str, Any]:
        """Return the arguments of `Popen` that give a process this account; only root can change it."""
        if os.geteuid() != 0:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}

    def _is_open(self, place: Path) -> bool:
        try:
            seen = place.stat()
        except PermissionError:
            return False
        except OSError:
            return True  # it is reported as missing
        return self.may_execute(seen) or (seen.st_uid != self.uid and _has_acl(place))

    def may_execute(self, seen: os.stat_result) -> bool:
        """Return whether the mode of a file or folder lets the account execute or enter it."""
        if self.uid == 0:
            return stat.S_ISDIR(seen.st_mode) or bool(seen.st_mode & 0o111)
        if seen.st_uid == self.uid:
            return bool(seen.st_mode & stat.S_IXUSR)
        member = seen.st_gid == self.gid or seen.st_gid in self.groups
        return bool(seen.st_mode & (stat.S_IXGRP if member else stat.S_IXOTH))


def find_account(user: str) -> Account | None:
    """Return the account with a name or a number, or None if this machine has none."""
    try:
        is_number = user.isascii() and user.isdecimal() and len(user) <= MAX_DIGITS
        entry = pwd.getpwuid(int(user)) if is_number else pwd.getpwnam(user)
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    except (KeyError, ValueError, OverflowError, OSError):
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell)


def account_of(user: str, directory: Path) -> Account:
    """Return the account of a program that is about to start in a folder. Raises `AccountError`."""
    account = find_account(user)
    problem = user_problem("user", user, account.uid if account else None, os.geteuid())
    if problem:
        raise AccountError(f"{problem.message}; {problem.remedy}")
    assert account is not None
    if obstacle := account.obstacle(directory):  # Popen changes the folder before the user
        raise AccountError(f"{user} cannot enter {obstacle}")
    return account


def _has_acl(place: Path) -> bool:
    try:
        return bool(os.getxattr(place, ACL))
    except OSError:
        return False
