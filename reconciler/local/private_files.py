"""Directories and files that only their owner can change: those of the state directory.

A directory is used only if no other user can change or replace it. A file in it is opened only if it is not a symbolic
link, and has mode 0600 regardless of the umask.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path

ROOT = 0
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
MAX_LINKS = 40
REMEDY = "choose another with --state-dir"


class NotPrivate(PermissionError):
    """Another user could change or replace the directory; the text has the reason and the remedy."""


class InUse(Exception):
    """Another process has the lock; the text is its process id."""


def make_directory(path: Path) -> None:
    """Create the directory with mode 0700 if it does not exist. Raises `NotPrivate` and OSError."""
    _check(path, may_be_missing=True)
    missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
        place.chmod(0o700)
    _check(path, may_be_missing=False)


def read(path: Path) -> bytes:
    """Return the content of a file. Raises OSError, also for a symbolic link."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read()


def write(path: Path, content: bytes) -> None:
    """Replace a file atomically. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(open_file(fresh, os.O_WRONLY | os.O_EXCL), "wb") as file:
        file.write(content)
    fresh.replace(path)


def update(path: Path, content: bytes) -> None:
    """Replace a file atomically, unless it has this content: that needs no space. Raises OSError."""
    with suppress(OSError):
        if read(path) == content:
            return
    write(path, content)


def open_file(path: Path, flags: int = os.O_WRONLY | os.O_APPEND) -> int:
    """Return a descriptor of the file, by default to append to it; the caller closes it. Raises OSError."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def lock(path: Path) -> FileIO:
    """Lock a file and write the pid to it; closing the file unlocks it. Raises `InUse` and OSError."""
    file = FileIO(open_file(path, os.O_RDWR), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            holder = file.read(20).decode(errors="replace").strip()
        raise InUse(holder if holder.isdecimal() else "?") from None
    with suppress(OSError):  # a full disk: the lock holds, and `InUse` has no pid
        file.write(f"{os.getpid()}\n".encode())
        file.truncate()
    return file


def _check(path: Path, *, may_be_missing: bool) -> None:
    """Follow the path and its symbolic links; raise `NotPrivate` if another user could change where it leads."""
    place, links = Path("/"), 0
    names = list(path.absolute().parts[1:])
    while names:
        _check_parent(path, place)
        name = names.pop(0)
        if name == "..":
            place = place.parent
            continue
        place /= name
        try:
            seen = place.lstat()
        except FileNotFoundError:
            if may_be_missing:
                return
            raise
        if stat.S_ISLNK(seen.st_mode):
            if seen.st_uid not in (ROOT, os.geteuid()):
                raise NotPrivate(f"{path}: the symbolic link {place} belongs to {_user(seen.st_uid)}; {REMEDY}")
            if (links := links + 1) > MAX_LINKS:
                raise NotPrivate(f"{path}: too many symbolic links; {REMEDY}")
            target = place.readlink()
            names = [*target.parts[target.is_absolute() :], *names]
            place = Path("/") if target.is_absolute() else place.parent
    _check_own(path, place.stat())


def _check_parent(path: Path, parent: Path) -> None:
    seen = parent.stat()
    if seen.st_uid not in (ROOT, os.geteuid()):
        raise NotPrivate(f"{path}: {_user(seen.st_uid)} owns {parent} and can replace what is in it; {REMEDY}")
    if _is_writable_by_others(seen) and not seen.st_mode & stat.S_ISVTX:
        mode = stat.S_IMODE(seen.st_mode)
        raise NotPrivate(f"{path}: other users can replace it, since {parent} has mode {mode:04o}; {REMEDY}")


def _check_own(path: Path, seen: os.stat_result) -> None:
    if not stat.S_ISDIR(seen.st_mode):
        raise NotADirectoryError(f"{path} is not a directory")
    if seen.st_uid != os.geteuid():
        owner, user = _user(seen.st_uid), _user(os.geteuid())
        raise NotPrivate(f"{path} belongs to {owner}, and zenvoy runs as {user}; {REMEDY}")
    if _is_writable_by_others(seen):
        mode = stat.S_IMODE(seen.st_mode)
        raise NotPrivate(f"{path} is writable by other users (mode {mode:04o}); run chmod go-w {path}, or {REMEDY}")


def _is_writable_by_others(seen: os.stat_result) -> bool:
    """Return whether other users can write; a group whose only member is the user does not count."""
    writable = seen.st_mode & WRITABLE_BY_OTHERS
    return bool(writable & stat.S_IWOTH or (writable and not _is_private_group(seen.st_gid)))


def _is_private_group(gid: int) -> bool:
    """Return whether this is the user's own group, which many systems create for each user."""
    user = _user(os.geteuid())
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
