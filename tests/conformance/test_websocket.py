"""The Autobahn test suite for WebSocket, through Envoy's HTTP listener."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from kosoku import FailureError, run_fuzzingclient

from tests.conformance.conftest import Outcome, Record
from tests.conformance.lanes import LANES, attempt, in_lanes
from tests.conformance.programs import built, listening
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy
from tests.ports import free_port

# The suite leaves the files of its own data to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*kosoku:ResourceWarning")
CASES = [*(f"{chapter}.*" for chapter in (1, 2, 3, 4, 5, 6, 7, 10)), "12.1.1", "12.2.1", "13.1.1", "13.3.1", "13.7.1"]
"""The protocol in full, and of compression one case for each kind; the rest repeats them with more and larger
messages."""
COUNT = 252
FAILURES = ("FAILED", "ERROR", "UNIMPLEMENTED")


@pytest.fixture(scope="module")
def direct() -> Iterator[int]:
    """The port of the server without zenvoy."""
    with listening([built("wsecho"), "{port}"]) as port:
        yield port


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    """Provide a service for each lane, which runs its cases in turn."""
    command = [built("wsecho"), "{port}"]
    services = [{"name": f"ws-{lane}", "command": command, "hosts": [address(lane)]} for lane in range(LANES)]
    return shared_zenvoy(*services, defaults=SLOW_TO_SLEEP, listen={"http": f"0.0.0.0:{free_port()}"})


def address(lane: int) -> str:
    return f"127.0.3.{1 + lane}"


def test_autobahn_through_zenvoy_adds_no_failure(z: Zenvoy, direct: int, record: Record) -> None:
    expected = asyncio.run(failures(LOCAL, direct, CASES))
    assert len(expected) == COUNT

    def outcome(lane: int, case: str) -> Outcome:
        name = f"ws-{lane}"

        def awake() -> str | None:
            return asyncio.run(failures(address(lane), z.http_port, [case]))[case]

        def asleep() -> str | None:
            z.sleep(name)
            return awake()

        return Outcome(expected[case], attempt(asleep), attempt(awake))

    outcomes = in_lanes(list(expected), outcome)
    for one in outcomes.values():
        record("Autobahn", one)
    added = {case: one.added() for case, one in outcomes.items() if one.added()}
    assert not added


async def failures(host: str, port: int, cases: list[str]) -> dict[str, str | None]:
    """Run cases, and return the error of each, or `None`."""
    try:
        results = await run_fuzzingclient(f"ws://{host}:{port}", cases=cases, concurrency=4)
    except FailureError as error:
        results = error.results
    verdicts = {one.case_id: (one.behavior.value, one.behavior_close.value) for one in results}
    return {case: " / ".join(found) if found[0] in FAILURES else None for case, found in verdicts.items()}
