"""Availability of what a program needs on this machine: its folder, its user, and its commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from reconciler.core import validation
from reconciler.local.account import Account, find_account
from reconciler.local.services_file.values import Value

LONGEST_FIRST_LINE = 256
"""As much of a script's first line as Linux reads, in bytes."""


def read_user(value: Value) -> tuple[str | None, Account | None]:
    """Return the user as it is written, and its account if a program can run as it."""
    user = value.as_written("www-data")
    if user is None:
        return None, None
    account = find_account(user)
    if problem := validation.user_problem(value.where, user, account.uid if account else None, os.geteuid()):
        value.missing(f"{problem.message}; {problem.remedy}")
        return user, None
    return user, account


def read_directory(value: Value | None, folder: Path) -> tuple[Path, bool]:
    """Return the folder, and whether it exists."""
    if value is None:
        return folder, True  # one object for all services of a file
    written = value.text("data")
    directory = Path(os.path.abspath(folder / (written or "")))
    if written is None or directory.is_dir():
        return directory, True
    if written.startswith("~") or "$" in written:
        value.missing(f"{directory} does not exist, because no shell replaces ~ and variables; write the full path")
        return directory, False
    found = "is not a folder" if directory.exists() else "does not exist"
    value.missing(f"{directory} {found}; create it, or correct the path")
    return directory, False


def check_folder(place: Value, account: Account, directory: Path) -> None:
    """Record that the account cannot enter the folder, if so."""
    if obstacle := account.obstacle(directory):
        right = f"run chmod o+x {obstacle}, or set workingDirectory to a folder that it can enter"
        place.missing(f"user {account.name} cannot enter {obstacle}; {right}")


def check_command(value: Value, name: str, directory: Path, path: str | None, account: Account | None) -> None:
    """Find the program as execvp(3) does, from the service's folder and with its PATH."""
    at = value.items(name)[0] if value.is_list() else value
    if "/" in name:
        places = [os.path.join(directory, name)]
    else:
        searched = os.environ.get("PATH", os.defpath) if path is None else path
        places = [os.path.join(directory, part, name) for part in searched.split(os.pathsep)]
    found = [place for place in places if os.path.isfile(place)]
    if executable := [Path(place) for place in found if os.access(place, os.X_OK)]:
        if problem := _interpreter_problem(executable[0]):
            at.missing(problem)
        elif account:
            _check_access(at, account, executable)
        return
    if found:
        at.missing(f"{Path(found[0])} is not executable; run chmod +x, or put its interpreter before it")
    elif "/" in name:
        problem = "is a folder" if os.path.isdir(places[0]) else "does not exist"
        at.missing(f"{Path(places[0])} {problem}; correct the path")
    else:
        which = "the service's own PATH" if path is not None else "PATH"
        at.missing(f"{name!r} not found on {which}; install it, or use its path: /path/to/{name}")


def _interpreter_problem(program: Path) -> str | None:
    """Return why Linux cannot execute a script; its own error is a missing file, or a wrong format."""
    try:
        with program.open("rb") as file:
            line = file.readline(LONGEST_FIRST_LINE)
    except OSError:
        return None  # it can be executable without being readable
    if not line.startswith(b"#!"):
        if not line.strip() or not line.isascii() or b"\0" in line:
            return None  # not text
        return f"{program} has no #! line; begin it with #!/bin/sh, or put its interpreter before it"
    if line.endswith(b"\r\n"):
        return f"{program} has the line ends of Windows; save it with those of Unix"
    words = line[2:].split()
    interpreter = os.fsdecode(words[0]) if words else ""
    if not interpreter.startswith("/") or os.path.exists(interpreter):
        return None
    return f"{program} begins with #!{interpreter}, which does not exist; correct it"


def _check_access(place: Value, account: Account, paths: Sequence[Path]) -> None:
    """Record that the account cannot execute a program; of several `paths`, execvp(3) uses the first that it can."""
    obstacles = [account.obstacle(path) for path in paths]
    if None in obstacles:
        return
    right = f"run chmod o+x {obstacles[0]}, or use another program"
    place.missing(f"user {account.name} cannot execute {paths[0]}: no permission for {obstacles[0]}; {right}")
