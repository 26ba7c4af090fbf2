"""Answers at the control socket that are not those of a healthy reconciler."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import typer

from reconciler.cli import control_client
from reconciler.cli.commands import local
from reconciler.cli.output import ExitCode
from reconciler.local import private_files
from reconciler.local.state_dir import StateDir


@contextmanager
def answering(control: Path, answer: bytes) -> Iterator[None]:
    """Answer one request at this socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(control))
        server.listen()

        def serve() -> None:
            with server.accept()[0] as asked:
                asked.recv(65_536)
                with suppress(OSError):  # the client may stop reading
                    asked.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def has_code_1(error: control_client.ControlError) -> bool:
    """Return whether it is neither absence nor a rejection, which have codes of their own."""
    return error.code is ExitCode.FAILED


@pytest.mark.parametrize("body", [b"500 Internal Server Error\n\nServer got itself in trouble", b"[]", b""])
def test_control_server_error_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes) -> None:
    state = StateDir(tmp_path)
    head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(state.control, head + body), pytest.raises(typer.Exit) as raised:
        local.ask(state, "GET", "/v1/services")
    assert raised.value.exit_code == 1
    said = capsys.readouterr().err
    assert "zenvoy: the reconciler failed (GET /v1/services: 500 Internal Server Error" in said


def test_control_rejection_is_shown(tmp_path: Path) -> None:
    body = b'{"error": "there is no service nope"}'
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body)
    control = tmp_path / "control.sock"
    with (
        answering(control, head + body),
        pytest.raises(control_client.RequestRejected, match="there is no service nope"),
    ):
        control_client.ask(control, "GET", "/v1/services/nope")


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"])
def test_control_answer_too_long_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    monkeypatch.setattr(control_client, "ANSWER_BYTES_MAX", 1_000_000)
    control = tmp_path / "control.sock"
    answer = head.encode() + b"1" * 2_000_000
    with answering(control, answer), pytest.raises(control_client.ControlError, match="too long", check=has_code_1):
        control_client.ask(control, "GET", "/v1/overview")


def test_control_answer_nested_too_deeply_is_rejected(tmp_path: Path) -> None:
    body, control = b"[" * 200_000, tmp_path / "control.sock"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(control, head + body), pytest.raises(control_client.ControlError, match="failed", check=has_code_1):
        control_client.ask(control, "GET", "/v1/overview")


def test_control_silent_while_locked_names_running_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reconciler is being replaced, and `zenvoy up` runs."""
    state = StateDir(tmp_path)
    with private_files.lock(state.lock), pytest.raises(typer.Exit) as raised:
        local.ask(state, "GET", "/v1/services")
    assert raised.value.exit_code == 3
    message = capsys.readouterr().err
    assert f"`zenvoy up` (process {os.getpid()}) runs with the state directory {tmp_path}" in message
    with pytest.raises(typer.Exit):
        local.ask(state, "GET", "/v1/services")
    assert f"zenvoy is not running with the state directory {tmp_path}" in capsys.readouterr().err
