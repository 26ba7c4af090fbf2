"""Succession of services, by the claims that pass between programs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.local.processes.program import Program
from reconciler.local.processes.succession import ANYTHING, Succession, claims


def program(folder: str, *command: str, **more: Any) -> Program:
    return replace(Program(command=command or ("serve",), working_directory=Path(folder)), **more)


def waits(succession: Succession, heir: str) -> set[str]:
    return set(succession.predecessors(heir))


def test_succession_renamed_service_waits_for_old_one() -> None:
    old, succession = program("/data"), Succession()
    succession.configure({"cache": old}, {})
    succession.configure({"store": old}, {"cache": claims(old)})
    assert waits(succession, "store") == {"cache"}
    succession.configure({"store": old, "more": program("/other", "else")}, {"cache": claims(old)})
    assert waits(succession, "store") == {"cache"}
    assert not waits(succession, "more")
    succession.ended("cache")
    assert not waits(succession, "store")


def test_succession_returned_service_is_not_waited_for() -> None:
    old, succession = program("/data"), Succession()
    succession.configure({"cache": old}, {})
    succession.configure({"store": old}, {"cache": claims(old)})
    succession.configure({"store": old, "cache": old}, {"cache": claims(old)})
    assert not waits(succession, "store")


def test_succession_neighbours_in_one_folder_do_not_wait() -> None:
    before = {name: program("/app", name) for name in "abc"}
    after = {name: program("/app", name, "--new") for name in "ab"}
    succession, running = Succession(), {name: claims(before[name]) for name in "abc"}
    succession.configure(before, {})
    succession.configure(after, running)
    assert not waits(succession, "a")
    assert not waits(succession, "b")


def test_succession_passed_folder_is_waited_for() -> None:
    one, two = program("/one", "a"), program("/two", "b")
    succession = Succession()
    succession.configure({"a": one, "b": two}, {})
    succession.configure({"a": program("/two", "a"), "b": program("/one", "b")}, {"a": claims(one)})
    assert waits(succession, "b") == {"a"}
    assert not waits(succession, "a")


def test_succession_any_passed_claim_is_waited_for() -> None:
    old = program("/old", "serve", "--data=/srv/data", port=7000, addresses=("127.0.0.1:5432",))
    heirs = {
        "command": program("/new", "serve", "--data=/srv/data"),
        "path": program("/new", "other", "/srv/data/"),
        "variable": program("/new", "other", environment=(("DATA", "/srv/data"),)),
        "port": program("/new", "other", port=7000),
        "address": program("/new", "other", addresses=("127.0.0.1:5432",)),
        "nothing": program("/new", "other"),
    }
    succession = Succession()
    succession.configure({"old": old}, {})
    succession.configure(heirs, {"old": claims(old)})
    assert {name for name in heirs if waits(succession, name)} == heirs.keys() - {"nothing"}


def test_succession_process_without_note_is_waited_for() -> None:
    succession = Succession()
    succession.configure({"web": program("/new"), "known": program("/known")}, {"gone": ANYTHING, "known": ANYTHING})
    assert waits(succession, "web") == {"gone"}


async def test_succession_change_before_wait_is_noticed() -> None:
    old, succession = program("/data"), Succession()
    succession.configure({"cache": old}, {})
    succession.configure({"store": old}, {"cache": claims(old)})
    change = succession.change()
    succession.ended("cache")
    async with asyncio.timeout(60):
        await change
