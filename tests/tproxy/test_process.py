"""What a holder is called when nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tproxy.harness import unused_port
from tproxy import process
from tproxy.process import claim_id


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{unused_port()}"


def test_a_restarted_one_is_the_same(address: str) -> None:
    name, claim = claim_id(address)
    assert claim
    claim.close()
    again, claim = claim_id(address)
    assert claim
    claim.close()
    assert again == name


def test_one_that_still_runs_keeps_its_name(address: str) -> None:
    name, claim = claim_id(address)
    assert claim
    with claim:
        other, nothing = claim_id(address)
    assert nothing is None
    assert other != name


def test_another_address_is_another_holder(address: str) -> None:
    found = [claim_id(address), claim_id(f"127.0.0.2:{address.rpartition(':')[2]}")]
    for _, claim in found:
        assert claim
        claim.close()
    assert found[0][0] != found[1][0]


def test_where_the_machine_cannot_be_told_from_others_it_is_random(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "BOOT_ID", tmp_path / "nothing")
    assert claim_id(address)[0] != claim_id(address)[0]
