"""Log output: one line per event for people, or JSON for machines."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import datetime
from functools import partial
from typing import Any, TextIO, cast

import msgspec
import structlog

from reconciler.app.encoding import ERRORS
from reconciler.core.text import printable, printable_json
from tproxy.io.log_output import LogOutput, replace_streams

Entry = MutableMapping[str, Any]

COLOURS = {"ScaledToZero": "34", "Waking": "33", "Active": "32", "Idle": "36", "Draining": "35"}


def configure(style: str) -> None:
    """Write log lines to standard output, in the style `plain` or `json`.

    From now on, no write of this process to standard output or standard error blocks or fails.
    """
    is_json = style == "json"
    output = _output(1, "utf-8" if is_json else sys.stdout.encoding)
    last = structlog.processors.JSONRenderer(_json) if is_json else partial(_plain, is_coloured=os.isatty(1))
    replace_streams(output, _output(2, sys.stderr.encoding))
    lines = structlog.WriteLogger(cast(TextIO, output))  # one write per line: other processes write to the same file
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )


def _output(descriptor: int, encoding: str) -> LogOutput:
    return LogOutput(descriptor, partial(str.encode, encoding=encoding, errors=ERRORS))


def _json(entry: Entry, **_: object) -> str:
    """Return an entry as JSON. msgspec is ten times as fast as the standard library, and a wake writes four lines."""
    try:
        return printable_json(msgspec.json.encode(entry, enc_hook=repr).decode())
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return json.dumps(entry, default=repr)


def printable_values(_: object, __: str, entry: Entry) -> Entry:
    """Escape control characters: many values come from objects, peers and programs."""
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = _indented(value) if key == "exception" else printable(value)
    return entry


def _indented(trace: str) -> str:
    """Indent a traceback, so that none of its lines looks like a log line."""
    return "\n".join(f"  {printable(line)}" for line in trace.split("\n"))


def _plain(_: object, __: str, entry: Entry, *, is_coloured: bool) -> str:
    printable_values(_, __, entry)
    clock = datetime.now().astimezone().isoformat(" ", "milliseconds")
    entry.pop("timestamp")
    level, event = entry.pop("level"), entry.pop("event")
    if event == "transition":
        return f"{clock}  {_transition(entry, is_coloured)}"
    if event == "woken":
        return f"{clock}  {_woken(entry)}"
    trace = entry.pop("exception", None)
    rest = "  ".join(printable(f"{key}={value}") for key, value in entry.items())
    mark = "" if level == "info" else f"{level}: "
    return f"{clock}  {mark}{event}{'  ' + rest if rest else ''}" + (f"\n{trace}" if trace else "")


def _transition(entry: Entry, is_coloured: bool) -> str:
    source, target = entry["source"], entry["target"]
    if source == target:
        reference = f" (reference {entry['reference']})" if "reference" in entry else ""
        return f"{entry['service']:<16} {_state(target, is_coloured)} stalled: {entry['reason']}{reference}"
    states = f"{_state(source, is_coloured)} → {_state(target, is_coloured)}"
    return f"{entry['service']:<16} {states}  {entry['reason']}"


def _woken(entry: Entry) -> str:
    parts = ", ".join(f"{name} {_milliseconds(seconds)}" for name, seconds in entry["parts"].items())
    waited = f"  ({entry['peer']} waited)" if entry["peer"] else ""
    return f"{entry['service']:<16} woken in {_milliseconds(entry['total'])}: {parts}{waited}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _state(name: str, is_coloured: bool) -> str:
    padded = f"{name:<12}"
    return f"\033[{COLOURS.get(name, '0')}m{padded}\033[0m" if is_coloured else padded
