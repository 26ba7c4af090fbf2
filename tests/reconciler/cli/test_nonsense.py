"""Invalid values of options: every command rejects them with an example, and without a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from typer.testing import CliRunner

from reconciler.cli.main import app
from tproxy.cli import app as holder

NEEDED = {
    "up": ["{here}/services.yaml"],
    "check": ["{here}/services.yaml"],
    "reconcile": ["{here}/services.yaml", "--holder-port=18001"],
    "controller": ["--pod-name=me", "--pod-ip=127.0.0.1", "--kubeconfig={here}/kubeconfig", "--plaintext"],
    "certificate": ["edge-1"],
    "run": ["--reconciler=127.0.0.1:18000"],
    **{name: ["web"] for name in ("explain", "wake", "logs", "sleep", "wait", "pause", "resume")},
}
WRONG = {
    "--grpc": ("", "nonsense", "127.0.0.1:0", "127.0.0.1:99999", "::1:1"),
    "--metrics": ("nonsense", "127.0.0.1:²"),
    "--holder-metrics": ("", "nonsense"),
    "--state": ("nonsense", "active", ""),
    "--state-dir": ("", "/dev/null", "/dev/null/below"),
    "--log": ("nonsense", ""),
    "--prometheus": ("nonsense", "http://[", "ftp://x", "http://", "http://x:y", "{", "http://me:secret@x"),
    "--scrape-interval": ("nonsense", "0", "-1s"),
    "--prometheus-headers-file": ("/nowhere", "/", "/dev/zero", "/proc/self/cmdline"),
    "--prometheus-bearer-token-file": ("/nowhere", "/"),
    "--prometheus-ca-file": ("/nowhere", "/"),
    "--pod-name": ("", "No Name", "-"),
    "--pod-ip": ("", "nonsense", "1.2.3", "[::1]"),
    "--http-port": ("0", "-1", "65536", "http"),
    "--tls-port": ("0", "65536"),
    "--hold-mode": ("nonsense",),
    "--holder-port": ("0", "65536", "nonsense"),
    "--hold-ports": ("nonsense", "2-1", "1-65536"),
    "--capture-ports": ("nonsense", "2-1", "1-65536"),
    "--namespaces": ("a,B", "a/b"),
    "--proxy": ("", "nonsense", "[]", '{"https":{}}', '{"http":{"maxHeaders":0}}'),
    "--host-policy": ("", "nonsense", "{}", '[{"namespaces":["a"]}]', '[{"namespaces":["a"],"hosts":["a.*"]}]'),
    "--cluster-domain": ("", "a b", "-"),
    "--lease-namespace": ("", "a.b"),
    "--lease-name": ("", "A"),
    "--lease-duration": ("nonsense", "0", "10ms"),
    "--peers-service": ("", "a b"),
    "--proxies-service": ("a b",),
    "--hook-of": ("a b",),
    "--sample-interval": ("nonsense", "0"),
    "--days": ("0", "91", "nonsense"),
    "--ca-secret": ("", "a b"),
    "--tls-ca-secret": ("a b",),
    "--tls-proxy-secret": ("a b",),
    "--tls-cert": ("/nowhere",),
    "--tls-key": ("/nowhere",),
    "--tls-ca": ("/nowhere",),
    "--output": ("nonsense",),
    "--namespace": ("", "../pods", "A"),
    "--system-namespace": ("", "a/b"),
    "--controller": ("", "nonsense", "http://["),
    "--timeout": ("nonsense", "0"),
    "--reconciler": ("", "nonsense", ":1", "host:0", "host:65536"),
    "--node": ("", "\x00"),
    "--admin": ("", "nonsense", "http://[", "127.0.0.1"),
    "--stats-address": ("", "9902"),
    "--inspect": ("", "nonsense", "0.0.0.0:1"),
    "--open-files": ("", "0", "-1", "many"),
    "--stats-ports": ("", "0", "2-1", "1-65536", "nonsense"),
    "--mode": ("nonsense",),
    "--tail": ("nonsense", "-1"),
    "--directory": ("/nowhere", "/dev/null"),
    "--for": ("nonsense", "-1", "nan", "inf"),
    "--settle": ("nonsense", "-1", "nan", "inf"),
    "--quiet": ("nonsense", "-1", "nan", "inf"),
    "--listen": ("nonsense", "fd:", "fd:99999999999999999999", "1.2.3.4"),
    "--ports": ("nonsense", "0-1", "2-1"),
    "--rules": ("nonsense",),
    "--drain-timeout": ("nonsense", "-1", "nan", "inf"),
    "--keepalive": ("nonsense", "0", "nan", "inf"),
    "--tcp-keepalive": ("nonsense", "0", "nan", "inf"),
    "--rules-check-interval": ("nonsense", "0", "nan", "inf"),
    "--listen-file": ("/nowhere/below", "/", "/dev/null"),
    "--keeper": ("/nowhere/keeper.sock",),
    "--family": ("nonsense",),
    "--tool": ("nonsense",),
    "--port": ("0", "65536", "nonsense"),
}
UNCHECKED = {
    "--envoy",
    "--context",
    "--kubeconfig",
    "--tls-server-name",
    "--holder-id",
    "--keeper",
    "--health-socket",
}
"""Options whose value is read only when it is used, and reported then."""
EXEMPT = {("bootstrap", flag) for flag in ("--tls-cert", "--tls-key", "--tls-ca")} | {
    ("reconcile", "--prometheus"),
    *(
        (command, "--state-dir")
        for command in ("status", "explain", "wake", "sleep", "wait", "logs", "pause", "resume", "doctor")
    ),
}
"""Options with values for Envoy, or with a directory that need not exist, except an empty one."""


def options() -> list[tuple[typer.Typer, str, str, str]]:
    found = []
    for program in (app, holder):
        group: Any = typer.main.get_command(program)
        for command in group.commands.values():
            flags = [
                max(one.opts, key=len) for one in command.params if one.param_type_name == "option" and not one.is_flag
            ]
            found += [(program, command.name, flag, value) for flag in flags for value in WRONG.get(flag, ())]
            assert {*flags} <= WRONG.keys() | UNCHECKED, command.name
    return [one for one in found if (one[1], one[2]) not in EXEMPT or not one[3]]


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Restore the log that commands configure."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "kubeconfig").write_text("{}")
    (tmp_path / "services.yaml").write_text(
        "listen: {http: 127.0.0.1:19999}\nservices:\n- {name: web, hosts: [web.test], command: [sleep], port: 9001}\n"
    )
    return tmp_path


@pytest.mark.parametrize(("program", "command", "flag", "value"), options())
def test_option_invalid_value_is_usage_error(
    here: Path, program: typer.Typer, command: str, flag: str, value: str
) -> None:
    needed = [word.format(here=here) for word in NEEDED.get(command, [])]
    cluster = [f"--kubeconfig={here}/kubeconfig"] if flag in ("--controller", "--timeout") and command != "up" else []
    more = {"--scrape-interval": ["--prometheus=http://127.0.0.1:1"], "--hold-ports": ["--hold-mode=tproxy"]}
    done = CliRunner().invoke(program, [command, *needed, *cluster, *more.get(flag, []), f"{flag}={value}"])
    assert done.exit_code == 2, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    assert flag in done.output or value in done.output


@pytest.mark.parametrize("url", ["http://me:secret@p:9090", "https://secret@p", "me:secret@p"])
@pytest.mark.parametrize("command", ["up", "controller"])
def test_url_with_password_is_not_shown(here: Path, command: str, url: str) -> None:
    needed = [word.format(here=here) for word in NEEDED[command]]
    done = CliRunner().invoke(app, [command, *needed, f"--prometheus={url}"])
    assert done.exit_code == 2
    assert "send them as a header" in " ".join(done.output.replace("│", "").split())
    assert "secret" not in done.output


def test_up_file_that_can_be_read_once_is_usage_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.mkfifo(tmp_path / "pipe")
    try:
        for file in ("/dev/stdin", f"/dev/fd/{reading}", f"{tmp_path}/pipe"):
            done = CliRunner().invoke(app, ["up", file, f"--state-dir={tmp_path}/state"])
            assert done.exit_code == 2, done.output
            assert "cannot be read again" in " ".join(done.output.replace("│", "").split())
    finally:
        os.close(reading)
        os.close(writing)


def test_up_two_prometheus_servers_is_usage_error(here: Path) -> None:
    named = ["--prometheus=http://127.0.0.1:9090", "--metrics=127.0.0.1:18080"]
    done = CliRunner().invoke(app, ["up", f"{here}/services.yaml", *named, "--with-prometheus"])
    assert done.exit_code == 2
    assert "remove one of the two" in " ".join(done.output.replace("│", "").split())


@pytest.mark.parametrize(
    "text", ["", "[1, {a: 2}]", "just text", "{clusters: 5}", "{clusters: [5], contexts: {}}", "\x00"]
)
def test_kubeconfig_invalid_is_exit_code_3(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    done = CliRunner().invoke(app, ["status", f"--kubeconfig={file}"])
    assert done.exit_code == 3, (done.output, done.exception)
    assert done.output.startswith("zenvoy: ")
    assert "--kubeconfig" in done.output
