from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.ports import free_port
from tproxy import process
from tproxy.io.loop import Loop
from tproxy.process import claim_id, log_failure


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


def test_failed_callback_is_logged_and_the_loop_continues() -> None:
    loop = Loop(log_failure)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    with capture_logs() as logged:
        loop.run()
    loop.close()
    assert [(line["event"], type(line["exc_info"])) for line in logged] == [("a callback failed", ZeroDivisionError)]
