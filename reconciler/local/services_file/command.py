"""The program of a service: its command, folder, environment and port, checked against the file system."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from signal import Signals

from reconciler.core import validation
from reconciler.core.spec import Protocol
from reconciler.core.text import closest_match
from reconciler.local.account import Account, find_account
from reconciler.local.processes.program import PLACEHOLDER, Program
from reconciler.local.services_file.shell_syntax import is_script, joined_lines, shell_syntax
from reconciler.local.services_file.values import Value

KEYS = ("command", "env", "workingDirectory", "user", "port", "ready", "busy", "stopSignal")
EXAMPLE = '[python3, -m, http.server, "{port}"]'
READY_EXAMPLE = "{http: /path}"
BUSY_EXAMPLE = "{http: /busy} or {command: [pgrep, -f, worker]}"
LONGEST_FIRST_LINE = 256
"""As much of a script's first line as Linux reads, in bytes."""
_NOT_IN_A_NAME = re.compile("[=\0\ud800-\udfff]")
"""Characters that no name of an environment variable has; the last ones are halves of characters."""
_PORT_VARIABLE = re.compile(r"\bPORT\b")
_SHELL_PORT = re.compile(r"\$(?:\{(?:PORT|port)(?:[^\w}][^}]*)?\}|(?:PORT|port)\b)")


def read_program(service: Value, fields: dict[str, Value], folder: Path, protocol: Protocol, drain: float) -> Program:
    """Return the program of a service; `folder` is the folder of the services file."""
    environment = _environment(fields["env"]) if "env" in fields else {}
    ready = fields["ready"].fields(("http", "command"), READY_EXAMPLE) if "ready" in fields else {}
    busy = _busy_check(fields["busy"]) if "busy" in fields else {}
    command, ready_command, busy_command = (
        _command(places["command"], environment) if "command" in places else [] for places in (fields, ready, busy)
    )
    if "command" not in fields:
        service.lacks("command", f"command: {EXAMPLE}")
    variables = {name: value.as_written() or "" for name, value in environment.items()}
    directory, there = _read_directory(fields.get("workingDirectory"), folder)
    user, account = _read_user(fields["user"]) if "user" in fields else (None, None)
    if account and there:
        _check_folder(fields.get("workingDirectory", fields["user"]), account, directory)
    for places, words in ((fields, command), (ready, ready_command), (busy, busy_command)):
        if words and there:
            _check_command(places["command"], words[0], directory, variables.get("PATH"), account)
    port = fields["port"].whole(1, 65535) if "port" in fields else None
    if command:
        _check_placeholders(fields["command"], command, environment, fixed="port" in fields)
    return Program(
        command=tuple(sys.intern(word) for word in command),  # many services have the same words
        working_directory=directory,
        environment=tuple(sorted(variables.items())),
        port=port,
        ready_path=_probe_path(fields["ready"], ready["http"], protocol) if "http" in ready else None,
        ready_command=tuple(ready_command),
        busy_path=_probe_path(fields["busy"], busy["http"], protocol) if "http" in busy else None,
        busy_command=tuple(busy_command),
        user=user,
        stop_signal=_signal(fields["stopSignal"]) if "stopSignal" in fields else Signals.SIGTERM,
        drain_timeout=drain,
    )


def _environment(value: Value) -> dict[str, Value]:
    """Return the variables in `env`, including those whose name has a problem."""
    environment = value.mapping("env: {NAME: value}")
    for name, text in environment.items():
        if not name or _NOT_IN_A_NAME.search(name):
            text.wrong(f"{name!r} is not the name of a variable; use env: {{NAME: value}}")
    return environment


def _busy_check(value: Value) -> dict[str, Value]:
    """Return the fields of `busy`. Unlike `ready`, it needs exactly one of them."""
    fields = value.fields(("http", "command"), BUSY_EXAMPLE)
    if value.is_mapping() and (len(fields) == 2 or not value.node.value):
        value.wrong(f"needs either http or command; for example {BUSY_EXAMPLE}")
    return fields


def _command(value: Value, variables: Collection[str]) -> list[str]:
    """Return the words of a command; empty if it has a problem. `variables` are the names in `env`."""
    written = None
    if value.is_list():
        places = value.items(EXAMPLE)
        words = [place.as_written() for place in places]
    else:
        written = value.text(EXAMPLE)
        if written is None:
            return []
        written = joined_lines(written)
        try:
            words = list(shlex.split(written))
        except ValueError as error:
            value.wrong(f"cannot be split into words: {str(error).lower()}; use a list, for example {EXAMPLE}")
            return []
        places = [value] * len(words)
    if not words or words[0] == "":
        value.wrong(f"empty; for example {EXAMPLE}")
        return []
    if None in words:
        return []
    known = [word for word in words if word is not None]
    if problem := shell_syntax(known, written, variables):
        value.wrong(problem)
        return []
    _check_texts(zip(places, known, strict=True))
    return known


def _check_placeholders(value: Value, command: list[str], environment: dict[str, Value], *, fixed: bool) -> None:
    values = [(place, place.as_written() or "") for place in environment.values()]
    for place, text in [] if is_script(command) else values:
        if found := _SHELL_PORT.search(text):
            place.wrong(f'{found[0]!r} is not replaced; use "{{port}}"')
    _check_texts(values)
    texts = [*command, *(text for _, text in values)]
    variable = "PORT" not in environment  # its own value replaces zenvoy's
    used = any(PLACEHOLDER.search(text) or (variable and _PORT_VARIABLE.search(text)) for text in texts)
    if not (used or fixed):
        value.wrong('the port is not used; put "{port}" in command or env, or set a fixed one, for example port: 8080')


def _check_texts(texts: Iterable[tuple[Value, str]]) -> None:
    for place, text in texts:
        if "\0" in text:
            place.wrong("no program can receive the character '\\x00'; remove it")
        for name in PLACEHOLDER.findall(text):
            if right := _right_placeholder(name, text):
                place.wrong(f"unknown placeholder {{{name}}}; {right} For this text itself, use {{{{{name}}}}}")


def _right_placeholder(name: str, text: str) -> str | None:
    """Return the correct placeholder; None if it is valid, or belongs to a script with its own braces."""
    if name == "port":
        return None
    if closest_match(name, ["port"]):
        return "did you mean {port}?"
    return None if re.search(r"\s", text) else "use {port}."


def _probe_path(value: Value, path: Value, protocol: Protocol) -> str | None:
    written = path.text("/path")
    if written is not None and not re.fullmatch(r"/[!-~]*", written):
        path.wrong(f"{written!r} is not a path; use for example /healthz")
    if protocol is Protocol.TLS:
        value.wrong("not available for tls services, which do not serve plain HTTP; remove it")
    return written


def _signal(value: Value) -> Signals:
    written = value.as_written("SIGTERM")
    known = {signal.name: signal for signal in Signals}
    name = "" if written is None else f"SIG{written.removeprefix('SIG')}"
    if name == "SIGSTOP":
        value.wrong("SIGSTOP suspends a program and does not end it; use SIGTERM or SIGINT")
    elif name in known:
        return known[name]
    elif written is not None:
        numbers = {str(int(signal)): signal.name for signal in Signals}
        guess = numbers.get(written) or (closest_match(name, known) if written else None)
        value.wrong(f"{written!r} is not a signal; " + (f"did you mean {guess}?" if guess else "use SIGTERM or SIGINT"))
    return Signals.SIGTERM


def _read_user(value: Value) -> tuple[str | None, Account | None]:
    """Return the user as it is written, and its account if a program can run as it."""
    user = value.as_written("www-data")
    if user is None:
        return None, None
    account = find_account(user)
    if problem := validation.user_problem(value.where, user, account.uid if account else None, os.geteuid()):
        value.missing(f"{problem.message}; {problem.remedy}")
        return user, None
    return user, account


def _read_directory(value: Value | None, folder: Path) -> tuple[Path, bool]:
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


def _check_folder(place: Value, account: Account, directory: Path) -> None:
    """Record that the account cannot enter the folder, if so."""
    if obstacle := account.obstacle(directory):
        right = f"run chmod o+x {obstacle}, or set workingDirectory to a folder that it can enter"
        place.missing(f"user {account.name} cannot enter {obstacle}; {right}")


def _check_command(value: Value, name: str, directory: Path, path: str | None, account: Account | None) -> None:
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
