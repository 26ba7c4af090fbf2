"""Components that can never start: `zenvoy up` ends with the reason, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.app.up import envoy_binary
from tests.e2e.conftest import Start
from tests.e2e.harness import Zenvoy, quick, request, until

WEB = {"name": "web", "command": quick("http")}


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def ended(z: Zenvoy) -> tuple[int, str]:
    """Return the exit code of an `up` that cannot start, and what it wrote."""
    z.start(wait=False)
    process = z.process
    assert process
    until("`up` ends", lambda: process.poll() is not None)
    return process.returncode, z.log_path.read_text()


def test_envoy_relative_path_starts_at_current_directory(zenvoy: Start) -> None:
    z = zenvoy(WEB, start=False, options=("--envoy", "./envoy"))
    (z.directory / "envoy").symlink_to(envoy_binary(None))
    z.start()
    assert request(z.http_port, "web").status == 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("neither a script nor a program", "Exec format error"),
        ("#!/no/such/interpreter\n", "No such file or directory"),
        ("#!/bin/sh\nexit 3\n", "--version exited with code 3"),
    ],
)
def test_envoy_unusable_is_reported_before_any_start(zenvoy: Start, content: str | None, reason: str) -> None:
    z = zenvoy(WEB, start=False, options=("--envoy", "./envoy"))
    if content is not None:
        script(z.directory / "envoy", content)
    code, text = ended(z)
    assert code == 1
    assert text.startswith(f"zenvoy: {z.directory}/envoy: ")
    assert reason in text and "set --envoy to the path of Envoy's binary" in text
    assert not z.state_dir.exists()


def test_envoy_that_always_exits_ends_up_with_its_output(zenvoy: Start) -> None:
    z = zenvoy(WEB, start=False, options=("--envoy", "./envoy"))
    version = f"if [ $1 = --version ]; then exec {envoy_binary(None)} --version; fi"
    script(z.directory / "envoy", f"#!/bin/sh\n{version}\necho the library is missing >&2\nexit 7\n")
    code, text = ended(z)
    assert code == 1
    reason = text.splitlines()[-1]
    assert reason.startswith("zenvoy: envoy ended 5 times and was never ready: exit code 7; ")
    assert "its last output: the library is missing" in reason
    assert str(z.state_dir / "logs" / "zenvoy.envoy.log") in reason
    assert not z.leftovers()
