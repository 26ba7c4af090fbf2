"""The informer against an API server that fails in every way that real ones do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from reconciler.kubernetes.client import informer as module
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import EndpointSlice
from reconciler.kubernetes.types.objects import decoder, path
from tests.fakes.api_server import ApiServer, serving


@dataclass
class Copy:
    """An informer that runs, and what it reported."""

    server: ApiServer
    informer: Informer[EndpointSlice]
    reported: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        return sorted(key.partition("/")[2] for key in self.informer.items)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(module, "WAIT_JITTER_SECONDS", 0.01)


@pytest.fixture
async def copy() -> AsyncIterator[Copy]:
    """Provide an up-to-date, watching copy of a server with two slices."""
    server = ApiServer()
    server.put("a")
    server.put("b")
    async with serving(server) as api:
        reported: list[str] = []

        def changed(key: str, item: EndpointSlice | None) -> None:
            reported.append(f"{'+' if item else '-'}{key.partition('/')[2]}")

        slices = path("discovery.k8s.io/v1", "endpointslices")
        informer = Informer(api, slices, decoder(EndpointSlice), changed, on_sync=lambda: reported.append("synced"))
        task = asyncio.create_task(informer.run())
        await until(lambda: server.open)
        yield Copy(server, informer, reported)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_informer_reports_objects_then_sync(copy: Copy) -> None:
    assert copy.reported == ["+a", "+b", "synced"]
    assert copy.informer.synced


async def test_informer_reports_changes(copy: Copy) -> None:
    copy.server.put("c")
    copy.server.put("a")
    copy.server.delete("b")
    await until(lambda: copy.reported[3:] == ["+c", "+a", "-b"])
    assert copy.names() == ["a", "c"]
    assert copy.server.lists == 1


async def test_informer_lists_all_pages(copy: Copy) -> None:
    copy.server.faults.page = 3
    for number in range(10):
        copy.server.put(f"n{number}")
    copy.server.forget()
    copy.server.cut()
    await until(lambda: copy.server.lists == 2 and copy.server.open)
    assert len(copy.informer.items) == 12


async def test_informer_cut_watch_resumes(copy: Copy) -> None:
    copy.server.put("c")
    await until(lambda: "+c" in copy.reported)
    await copy.server.tell(b'{"type": "DELETED", "object": {"metadata": {"name": "a", "name')
    copy.server.cut()
    copy.server.put("d")
    await until(lambda: "+d" in copy.reported)
    assert copy.names() == ["a", "b", "c", "d"]
    assert copy.server.lists == 1
    assert copy.server.watches[-1] == str(copy.server.version - 1)


async def test_informer_bookmark_starts_the_next_watch(copy: Copy) -> None:
    copy.server.bookmark()
    copy.server.put("c", "elsewhere")
    copy.server.bookmark()
    at = copy.server.version
    await until(lambda: copy.informer._version == str(at))
    assert copy.reported[3:] == ["+c"]
    copy.server.cut()
    await until(lambda: len(copy.server.watches) == 2)
    assert copy.server.watches[-1] == str(at)


async def test_informer_expired_version_lists_and_deletes(copy: Copy) -> None:
    copy.server.faults.refuse = (500, "InternalError")
    copy.server.cut()
    await until(lambda: copy.informer.error)
    copy.server.delete("a")
    copy.server.put("b")
    copy.server.put("c")
    copy.server.forget()
    assert copy.names() == ["a", "b"]
    copy.server.faults.refuse = None
    await until(lambda: copy.names() == ["b", "c"])
    assert sorted(copy.reported[3:]) == ["+b", "+c", "-a"]
    assert copy.server.lists == 2


async def test_informer_status_410_lists_again(copy: Copy) -> None:
    copy.server.faults.refuse_watches = (410, "Gone")
    copy.server.cut()
    await until(lambda: copy.server.lists >= 3)
    copy.server.faults.refuse_watches = None
    await until(lambda: copy.server.open)
    assert copy.reported == ["+a", "+b", "synced"], "nothing had changed"


@pytest.mark.parametrize(
    "refusal", [(500, "InternalError"), (429, "TooManyRequests"), (403, "Forbidden"), (404, "NotFound")]
)
async def test_informer_rejected_list_deletes_nothing(copy: Copy, refusal: tuple[int, str]) -> None:
    copy.server.faults.refuse = refusal
    copy.server.cut()
    await until(lambda: copy.informer.error and refusal[1] in str(copy.informer.error))
    assert copy.names() == ["a", "b"]
    copy.server.faults.refuse = None
    await until(lambda: copy.server.open and copy.informer.error is None)
    assert copy.reported == ["+a", "+b", "synced"]


async def test_informer_incomplete_list_deletes_nothing(copy: Copy) -> None:
    copy.server.put("c")
    copy.server.put("d")
    copy.server.faults.refuse = (500, "InternalError")
    copy.server.cut()
    await until(lambda: copy.informer.error)
    copy.server.faults.page = 2
    copy.server.delete("d")
    copy.server.forget()
    copy.server.faults.refuse_page = 1
    copy.server.faults.refuse = None
    await until(lambda: copy.server.faults.refuse_page is None)
    assert "-d" not in copy.reported
    await until(lambda: copy.names() == ["a", "b", "c"])


async def test_informer_expired_page_lists_at_once(copy: Copy) -> None:
    for number in range(5):
        copy.server.put(f"n{number}")
    copy.server.faults.page, copy.server.faults.refuse_page = 2, 1
    copy.server.faults.refuse_page_with = (410, "Expired")
    copy.server.forget()
    copy.server.cut()
    await until(lambda: copy.server.open and copy.server.lists == 3)
    assert len(copy.informer.items) == 7


async def test_informer_error_in_watch_is_retried(copy: Copy) -> None:
    await copy.server.tell(b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is away"}}\n')
    await until(lambda: len(copy.server.watches) == 2)
    assert copy.names() == ["a", "b"]
    assert copy.server.lists == 1


async def test_informer_invalid_watch_lists_again(copy: Copy) -> None:
    await copy.server.tell(b"<html>503 from something in between</html>\n")
    await until(lambda: len(copy.server.watches) == 2)
    assert copy.names() == ["a", "b"]


async def test_informer_repeated_rejection_lists_again(copy: Copy) -> None:
    copy.server.faults.refuse_watches = (504, "Timeout")
    copy.server.cut()
    await until(lambda: copy.server.lists >= 2)
    copy.server.faults.refuse_watches = None
    await until(lambda: copy.server.open)


async def test_informer_brief_watches_back_off(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_FIRST_SECONDS", 0.2)
    copy.server.faults.end_watches_at_once = True
    copy.server.cut()
    await until(lambda: len(copy.server.watches) >= 3)
    await asyncio.sleep(0.5)
    assert len(copy.server.watches) < 8


async def test_informer_silent_watch_is_renewed(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", (0, 0))
    monkeypatch.setattr(module, "WATCH_GRACE_SECONDS", 0.1)
    copy.server.cut()
    await until(lambda: len(copy.server.watches) >= 3)
    copy.server.put("c")
    await until(lambda: "+c" in copy.reported)
    assert copy.server.lists == 1


async def test_informer_unresponsive_server_is_retried(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", (0, 0))
    monkeypatch.setattr(module, "WATCH_GRACE_SECONDS", 0.1)
    copy.server.faults.silent = True
    copy.server.cut()
    await until(lambda: copy.informer.error)
    copy.server.put("c")
    copy.server.faults.silent = False
    await until(lambda: "+c" in copy.reported)
    await until(lambda: copy.informer.error is None)


async def test_informer_undecodable_object_keeps_last_state(copy: Copy) -> None:
    before = copy.informer.items["shop/a"]
    copy.server.put("a", endpoints="none at all")
    copy.server.put("c")
    await until(lambda: "+c" in copy.reported)
    assert copy.informer.items["shop/a"] is before
    assert "endpoints" in copy.informer.unreadable["shop/a"]
    copy.server.forget()
    copy.server.cut()
    await until(lambda: copy.server.lists == 2 and copy.server.open)
    assert copy.names() == ["a", "b", "c"], "a list that has it deletes it no more than a watch"
    copy.server.put("a")
    await until(lambda: not copy.informer.unreadable)
    assert copy.informer.items["shop/a"] is not before


async def test_informer_undecodable_object_is_deleted(copy: Copy) -> None:
    copy.server.put("a", endpoints="none at all")
    await until(lambda: copy.informer.unreadable)
    copy.server.delete("a")
    await until(lambda: "-a" in copy.reported)
    assert not copy.informer.unreadable


async def test_informer_unnamed_object_prevents_deletion(copy: Copy) -> None:
    copy.server.objects["shop/x"] = {"metadata": {"name": 7}}
    del copy.server.objects["shop/a"]
    copy.server.forget()
    copy.server.cut()
    await until(lambda: copy.server.lists == 2 and copy.server.open)
    assert copy.names() == ["a", "b"]


@pytest.mark.parametrize("seed", range(8))
async def test_informer_any_faults_converge(copy: Copy, seed: int) -> None:
    chance = random.Random(seed)
    server, faults = copy.server, copy.server.faults
    happenings: list[Callable[[], object]] = [
        *[lambda: server.put(chance.choice("abcdef"))] * 6,
        *[lambda: server.objects and server.delete(chance.choice(sorted(server.objects)).partition("/")[2])] * 3,
        server.bookmark,
        server.forget,
        server.cut,
        lambda: setattr(faults, "page", chance.choice([None, 1, 2, 3])),
        lambda: setattr(faults, "refuse_page", chance.choice([None, 1])),
        lambda: setattr(faults, "refuse_page_with", chance.choice([(500, "InternalError"), (410, "Expired")])),
        lambda: setattr(faults, "refuse", chance.choice([None, None, (429, "TooManyRequests"), (503, "Unavailable")])),
        lambda: setattr(faults, "refuse_watches", chance.choice([None, (410, "Gone"), (500, "InternalError")])),
    ]
    for _ in range(120):
        chance.choice(happenings)()
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.02]))
    server.faults.refuse = server.faults.refuse_watches = server.faults.refuse_page = None
    server.put("last")
    await until(lambda: "shop/last" in copy.informer.items)
    versions = {key: item.metadata.resource_version for key, item in copy.informer.items.items()}
    assert versions == {key: one["metadata"]["resourceVersion"] for key, one in server.objects.items()}
    believed: set[str] = set()
    for word in copy.reported:
        (believed.add if word[0] == "+" else believed.discard)(word[1:])
    assert believed == set(copy.names())
