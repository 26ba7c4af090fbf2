from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ports import free_port
from tproxy import process
from tproxy.process import claim_id


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


def claim_and_end(address: str) -> str:
    with ExitStack() as stack:
        return claim_id(address, stack)


def test_claim_id_after_restart_is_the_same(address: str) -> None:
    assert claim_and_end(address) == claim_and_end(address)


def test_claim_id_of_a_running_process_is_not_reused(address: str) -> None:
    with ExitStack() as stack:
        running = claim_id(address, stack)
        others = {claim_and_end(address), claim_and_end(address)}
        assert len(others | {running}) == 3, "the others are random"
    assert claim_and_end(address) == running


def test_claim_id_of_another_address_differs(address: str) -> None:
    assert claim_and_end(address) != claim_and_end(f"127.0.0.2:{address.rpartition(':')[2]}")


def test_claim_id_unidentified_machine_is_random(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BOOT_ID", tmp_path / "nothing")
    assert claim_and_end(address) != claim_and_end(address)
