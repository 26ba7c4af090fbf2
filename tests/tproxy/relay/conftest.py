from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tproxy.relay.rig import Rig, new_rig
from tproxy.relay import relay

NEVER_SECONDS = 3600.0


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A rig whose times are longer than any pause of the machine."""
    monkeypatch.setattr(relay, "RESET_GRACE_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(relay, "SENT_SECONDS", NEVER_SECONDS)
    with new_rig() as rig:
        yield rig
