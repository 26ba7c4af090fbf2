"""Succession of programs: two programs never use the same data at once, so the successor waits for the other's end.

The *claims* of a program are its folder, command, port, addresses and absolute paths. A service waits for another one
if it acquired a claim that the other's running program has and its configuration gave up. Two configured services may
share claims; that is intended.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Mapping

from reconciler.local.processes.program import Program

Claims = frozenset[str]
ANYTHING: Claims = frozenset({"anything"})
"""The claims of a process without a note."""


def claims(program: Program) -> Claims:
    """Return the claims of a program."""
    words = [*program.command[1:], *(value for _, value in program.environment)]
    paths = [path for word in words if (path := word.rpartition("=")[2]).startswith("/")]
    return frozenset(
        {
            f"folder {os.path.normpath(program.working_directory)}",
            f"command {shlex.join(program.command)}",
            *([f"port {program.port}"] if program.port else []),
            *(f"address {address}" for address in program.addresses),
            *(f"path {os.path.normpath(path)}" for path in paths),
        }
    )


def shared(given_up: Claims, acquired: Claims) -> Claims:
    """Return the claims that pass to the successor."""
    return acquired if given_up >= ANYTHING else given_up & acquired


def give_up(running: Claims, present: Program | None) -> Claims:
    """Return the claims of a running program that `present`, the configured program, does not have."""
    if running >= ANYTHING:
        return running if present is None else frozenset()
    return running - claims(present) if present else running


class Succession:
    """The services that wait for others to end."""

    def __init__(self) -> None:
        self._programs: Mapping[str, Program] = {}
        self._waits: dict[str, dict[str, Claims]] = {}
        """The claims that pass, by successor and predecessor."""
        self._news = asyncio.Event()

    def configure(self, programs: Mapping[str, Program], running: Mapping[str, Claims]) -> None:
        """Replace all programs; `running` are the claims of running programs, by service."""
        before, self._programs = self._programs, programs
        given_up = {name: given for name, own in running.items() if (given := give_up(own, programs.get(name)))}
        waits: dict[str, dict[str, Claims]] = {}
        for successor, program in programs.items() if given_up else ():
            old = before.get(successor)
            acquired = (
                frozenset()
                if old == program
                else claims(program) - (claims(old) if old else running.get(successor, frozenset()))
            )
            still = self._waits.get(successor, {})
            for name, given in given_up.items():
                passing = shared(given, claims(program) if name in still else acquired)
                if passing and name != successor:
                    waits.setdefault(successor, {})[name] = passing
        self._waits = waits
        self._announce()

    def predecessors(self, successor: str) -> Mapping[str, Claims]:
        """Return the services that must end before `successor` may start, with the claims that pass to it."""
        return self._waits.get(successor, {})

    def ended(self, service: str) -> None:
        """Note that all processes of the service have ended."""
        for waits in self._waits.values():
            waits.pop(service, None)
        self._announce()

    def change(self) -> Awaitable[object]:
        """Return an awaitable that is done when a service ends or the configuration changes after this call."""
        return self._news.wait()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
