from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tproxy.relay.rig import Rig, new_rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    with new_rig() as rig:
        yield rig
