"""The rule that two programs are never at work on the same data: the one that takes over waits for the other's end.

What a program may keep data in or be reached by is its *claims*: folder, command, port, addresses, absolute paths. A
service waits for another one if it acquired a claim that the other one's running program has and its service gave up.
Two services that are configured side by side may share claims; that is their owner's intention.
Pure but for `Succession`, which wakes those who wait. Counterpart: `unit.py`, which starts and ends programs.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Mapping

from reconciler.local.processes.program import Program

Claims = frozenset[str]
ANYTHING: Claims = frozenset({"anything"})
"""The claims of a process of which only the service is known."""


def claims(program: Program) -> Claims:
    """Return what the program may share with one that takes its place."""
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
    """Return the claims that pass from one to the other."""
    return acquired if given_up >= ANYTHING else given_up & acquired


def give_up(running: Claims, present: Program | None) -> Claims:
    """Return the claims of a running program that its service has no more; `present` is its present program."""
    if running >= ANYTHING:
        return running if present is None else frozenset()
    return running - claims(present) if present else running


class Succession:
    """Which services wait for which others to end."""

    def __init__(self) -> None:
        self._programs: Mapping[str, Program] = {}
        self._waits: dict[str, dict[str, Claims]] = {}
        """By the service that waits and the one that it waits for: what passes between them."""
        self._news = asyncio.Event()

    def configure(self, programs: Mapping[str, Program], running: Mapping[str, Claims]) -> None:
        """Take these programs; `running` are the claims of what runs now, by service."""
        before, self._programs = self._programs, programs
        given_up = {name: given for name, own in running.items() if (given := give_up(own, programs.get(name)))}
        waits: dict[str, dict[str, Claims]] = {}
        for heir, program in programs.items() if given_up else ():
            old = before.get(heir)
            acquired = (
                frozenset()
                if old == program
                else claims(program) - (claims(old) if old else running.get(heir, frozenset()))
            )
            still = self._waits.get(heir, {})
            for name, given in given_up.items():
                passing = shared(given, claims(program) if name in still else acquired)
                if passing and name != heir:
                    waits.setdefault(heir, {})[name] = passing
        self._waits = waits
        self._announce()

    def predecessors(self, heir: str) -> Mapping[str, Claims]:
        """Return the services that must end before `heir` may start, with what passes to it."""
        return self._waits.get(heir, {})

    def ended(self, service: str) -> None:
        """Nothing of the service runs any more."""
        for waits in self._waits.values():
            waits.pop(service, None)
        self._announce()

    def change(self) -> Awaitable[object]:
        """Return what is done when a service has ended or the configuration has changed, from this call on."""
        return self._news.wait()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
