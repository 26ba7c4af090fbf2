"""What the command makes of answers of a running zenvoy that are none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from reconciler.cli import control_client
from reconciler.cli.commands import local
from reconciler.local.state_dir import StateDir


@contextmanager
def answering(control: Path, answer: bytes) -> Iterator[None]:
    """Whoever asks once at this socket hears that."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(control))
        server.listen()

        def serve() -> None:
            with server.accept()[0] as asked:
                asked.recv(65_536)
                asked.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize("body", [b"500 Internal Server Error\n\nServer got itself in trouble", b"[]", b""])
def test_a_failure_of_the_reconciler_is_told_in_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    state = StateDir(tmp_path)
    head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(state.control, head + body), pytest.raises(typer.Exit) as raised:
        local.ask(state, "GET", "/v1/services")
    assert raised.value.exit_code == 1
    said = capsys.readouterr().err
    assert "zenvoy: the reconciler failed (GET /v1/services: 500 Internal Server Error" in said


def test_a_refusal_is_told_in_its_words(tmp_path: Path) -> None:
    body = b'{"error": "there is no service nope"}'
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body)
    control = tmp_path / "control.sock"
    with answering(control, head + body), pytest.raises(control_client.Rejected, match="there is no service nope"):
        control_client.ask(control, "GET", "/v1/services/nope")
