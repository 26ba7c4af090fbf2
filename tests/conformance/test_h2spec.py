"""h2spec, the conformance suite for HTTP/2: through Envoy's HTTP listener, and as TCP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conformance.conftest import Outcome, Record
from tests.conformance.lanes import ATTEMPTS, LANES, attempt, in_lanes
from tests.conformance.programs import built, listening, run
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy
from tests.ports import free_port

CASES = 145
TIMEOUT_SECONDS = 5
"""The time for which a case waits for a frame; a wake on a busy machine takes less."""
DOCUMENTED: dict[str, frozenset[str]] = {
    "h2c": frozenset(
        {
            "generic/3.8/1",
            "http2/5.1/8",
            "http2/5.1/9",
            "http2/5.1/11",
            "http2/5.1/12",
            "http2/5.1.1/2",
            "http2/5.3.1/2",
            "http2/6.3/1",
            "http2/6.9.1/2",
            "http2/6.9.1/3",
            "http2/7/1",
        }
    ),
    "tcp": frozenset(),
}
"""The cases that fail only through zenvoy, by protocol; docs/conformance.md has the reasons."""


@pytest.fixture(scope="module")
def direct() -> Iterator[int]:
    """The port of the server without zenvoy."""
    with listening([built("h2server"), "{port}"]) as port:
        yield port


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    """Provide a service for each lane and protocol. A lane runs its cases in turn."""
    command = [built("h2server"), "{port}"]
    services = [
        {"name": f"{protocol}-{lane}", "protocol": protocol, "command": command, **fields}
        for lane in range(LANES)
        for protocol, fields in {"h2c": {"hosts": [address(lane)]}, "tcp": {}}.items()
    ]
    return shared_zenvoy(*services, defaults=SLOW_TO_SLEEP, listen={"http": f"0.0.0.0:{free_port()}"})


def address(lane: int) -> str:
    return f"127.0.2.{1 + lane}"


@pytest.mark.parametrize("protocol", ["h2c", "tcp"])
def test_h2spec_through_zenvoy_adds_no_failure(
    z: Zenvoy, direct: int, record: Record, tmp_path: Path, protocol: str
) -> None:
    cases = known_cases(direct, tmp_path)
    assert len(cases) == CASES

    def outcome(lane: int, case: str) -> Outcome:
        name = f"{protocol}-{lane}"
        host, port = (address(lane), z.http_port) if protocol == "h2c" else (LOCAL, z.port(name))
        plain = attempt(lambda: failure(LOCAL, direct, case))
        attempts = 1 if plain or case in DOCUMENTED[protocol] else ATTEMPTS

        def asleep() -> str | None:
            z.sleep(name)
            return failure(host, port, case)

        while_asleep = attempt(asleep, attempts)
        z.wake(name)
        while_awake = attempt(lambda: failure(host, port, case), attempts)
        return Outcome(plain, while_asleep, while_awake)

    outcomes = in_lanes(cases, outcome)
    for one in outcomes.values():
        record(f"h2spec, {protocol}", one)
    added = {case: one.added() for case, one in outcomes.items() if one.added()}
    assert added.keys() <= DOCUMENTED[protocol], added


def known_cases(port: int, folder: Path) -> list[str]:
    """Return the name of every case, such as `http2/6.5.1/2`."""
    report = folder / "report.xml"
    run(built("h2spec"), "-h", LOCAL, "-p", str(port), "-o", "1", "-j", str(report))
    numbers: Counter[str] = Counter()
    cases = []
    for case in ElementTree.parse(report).iter("testcase"):
        package = case.attrib["package"]
        numbers[package] += 1
        cases.append(f"{package}/{numbers[package]}")
    return cases


def failure(host: str, port: int, case: str) -> str | None:
    """Run a case, and return the output if it fails."""
    done = run(built("h2spec"), "-h", host, "-p", str(port), "-o", str(TIMEOUT_SECONDS), case)
    return done.stdout if done.returncode else None
