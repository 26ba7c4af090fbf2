"""Valid services files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from signal import Signals

import pytest

from reconciler.core.spec import Ignore, Protocol, Spec, UsageUnit
from reconciler.local.processes.program import Program
from reconciler.local.services_file import ServicesFile, read
from reconciler.ports.router import ProxySettings

FULL = """
listen: {http: "127.0.0.1:10000", tls: "[::1]:10443"}
sampleInterval: 500ms
defaults: {idleAfter: 10m, maxHeld: 5}
services:
  - name: web
    hosts: [web.localhost, shop.example.com, web]
    command: [sh, -c, "exec serve --port {port}"]
    env: {LEVEL: 1, COLOUR: off, MODE: "fast"}
    workingDirectory: site
    ready: {http: /healthz}
    idleAfter: 1h30m
    wakeTimeout: 500ms
    holdTimeout: 1.5s
    drainTimeout: 2m
    stopSignal: SIGINT
    ignore:
      - {paths: [/healthz, /metrics/*], userAgents: [kube-probe/], answer: {status: 503, body: asleep}}
      - {sources: [10.1.2.3/16, "fd00::1"]}
    paused: true
  - name: api
    protocol: h2c
    command: sh -c 'exec serve "$PORT"'
    idle: {by: bytes}
  - {name: db, protocol: tcp, listen: "127.0.0.1:15432", command: sh serve, port: 5433, ready: {command: sh ask}}
  - {name: mail, protocol: tls, hosts: [mail.example.com], command: [sh, "{port}"]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    path = tmp_path / "services.yaml"
    path.write_text(FULL)
    return path


def right(path: Path) -> ServicesFile:
    found = read(path)
    assert isinstance(found, ServicesFile), "\n".join(map(str, found))
    return found


def changed(path: Path, old: str, new: str) -> ServicesFile:
    assert old in FULL
    path.write_text(FULL.replace(old, new))
    return right(path)


def test_parser_full_file_reads_every_field(file: Path) -> None:
    said = right(file)
    assert (said.listen_http, said.listen_tls, said.sample_interval) == ("127.0.0.1:10000", "[::1]:10443", 0.5)
    web = said.services[0]
    assert web.spec == Spec(
        name="web",
        hosts=("web", "web.localhost", "shop.example.com"),
        idle_after=5400,
        wake_timeout=0.5,
        hold_timeout=1.5,
        drain_timeout=120,
        max_held=5,
        ignore=(
            Ignore(paths=("/healthz", "/metrics/*"), user_agents=("kube-probe/",), status=503, body="asleep"),
            Ignore(sources=("10.1.0.0/16", "fd00::1/128")),
        ),
        paused=True,
    )
    assert web.program == Program(
        command=("sh", "-c", "exec serve --port {port}"),
        working_directory=file.parent / "site",
        environment=(("COLOUR", "off"), ("LEVEL", "1"), ("MODE", "fast")),
        ready_path="/healthz",
        stop_signal=Signals.SIGINT,
        drain_timeout=120,
    )


def test_parser_proxy_reads_every_setting(file: Path) -> None:
    assert right(file).proxy == ProxySettings()
    limits, rest = "maxHeadersKiB: 512, maxHeaders: 2000", "healthPath: /up, defaultService: web, proxyProtocol: true"
    others = "tls: {proxyProtocol: true}, tcp: {proxyProtocol: [15432]}, keepalive: 2m"
    block = f"proxy: {{http: {{trustedHops: 0, {limits}, {rest}}}, {others}}}\nservices:"
    assert changed(file, "services:", block).proxy == ProxySettings(
        trusted_hops=0,
        max_headers_kib=512,
        max_headers=2000,
        health_path="/up",
        default_service="web",
        http_proxy_protocol=True,
        tls_proxy_protocol=True,
        tcp_proxy_protocol=frozenset({15432}),
        keepalive_seconds=120,
    )


def test_parser_http_with_listen_needs_no_shared_listener(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    own = "listen: 127.0.0.1:8100, http: {trustedHops: 2}"
    path.write_text(f"services: [{{name: web, protocol: http, command: [sleep, '1'], port: 8080, {own}}}]\n")
    (web,) = right(path).services
    assert (web.spec.protocol, web.spec.hosts) == (Protocol.HTTP, ("web",))
    assert (web.spec.listen, web.spec.trusted_hops) == ("127.0.0.1:8100", 2)


def test_parser_missing_fields_use_defaults(file: Path) -> None:
    _, api, db, mail = right(file).services
    assert api.spec == Spec(
        name="api", hosts=("api",), protocol=Protocol.H2C, idle_after=600, max_held=5, idle_by=UsageUnit.BYTES
    )
    assert api.program.command == ("sh", "-c", 'exec serve "$PORT"')
    assert (db.spec.protocol, db.spec.listen, db.program.port) == (Protocol.TCP, "127.0.0.1:15432", 5433)
    assert (db.program.ready_command, db.program.is_ready_by_dial) == (("sh", "ask"), False)
    assert (mail.spec.protocol, mail.spec.hosts) == (Protocol.TLS, ("mail", "mail.example.com"))
    assert (db.spec.idle_by, mail.spec.idle_by) == (UsageUnit.CONNECTIONS, UsageUnit.CONNECTIONS)
    assert api.program.working_directory == file.parent


def test_parser_relative_path_reads_equal_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = right(file)
    monkeypatch.chdir(file.parent)
    assert right(Path("services.yaml")) == said


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1h30m", "1h31m"),
        ("{LEVEL: 1", "{LEVEL: 2"),
        ("--port", "--listen"),
        ("SIGINT", "SIGTERM"),
        ("paused: true", ""),
    ],
)
def test_parser_change_affects_its_service_only(file: Path, old: str, new: str) -> None:
    before, after = right(file), changed(file, old, new)
    assert [a == b for a, b in zip(before.services, after.services, strict=True)] == [False, True, True, True]


def test_parser_equivalent_syntax_reads_equal_file(file: Path) -> None:
    before = right(file)
    assert changed(file, "idleAfter: 1h30m", "idleAfter: 90m  # as before") == before


def test_parser_anchors_and_merges_are_resolved(file: Path) -> None:
    before = right(file)
    merged = FULL.replace("- name: web", "- &web\n    name: web") + "  - {<<: *web, name: other, hosts: [o]}\n"
    file.write_text(merged)
    *others, last = right(file).services
    assert tuple(others) == before.services
    assert last == replace(
        before.services[0], spec=replace(before.services[0].spec, name="other", hosts=("other", "o"))
    )


def test_parser_command_is_found_by_service_path(tmp_path: Path) -> None:
    own = tmp_path / "site" / "own"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    file = tmp_path / "services.yaml"
    start = 'listen: {http: "127.0.0.1:1"}\nservices:\n  - {name: a, port: 1234, workingDirectory: site, '
    for rest in ("command: ./own}", f"command: own, env: {{PATH: {own.parent}}}}}", "command: own, env: {PATH: .}}"):
        file.write_text(start + rest)
        right(file)
    file.write_text(start + "command: own}")
    assert "not found on PATH" in str(read(file))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("#!/bin/sh\n", None),
        ("#! /usr/bin/env sh\n", None),
        ("#!/bin/sh\r\n", "has the line ends of Windows"),
        ("#!/usr/bin/env python3\r\n", "has the line ends of Windows"),
        ("#!/nowhere/python\n", "begins with #!/nowhere/python, which does not exist"),
        ("exec serve\n", "has no #! line"),
        ("\x7fELF\0", None),
    ],
)
def test_parser_script_without_its_interpreter_is_reported(tmp_path: Path, content: str, problem: str | None) -> None:
    script = tmp_path / "script"
    script.write_text(content)
    script.chmod(0o755)
    file = tmp_path / "services.yaml"
    file.write_text('listen: {http: "127.0.0.1:1"}\nservices:\n  - {name: a, command: [./script, "{port}"]}')
    found = read(file)
    if problem is None:
        assert isinstance(found, ServicesFile)
    else:
        assert f"{script} {problem}" in str(found)


def problems(file: Path) -> list[str]:
    """Return the problems of a file that has some."""
    found = read(file)
    assert isinstance(found, list)
    return [str(problem) for problem in found]


def test_parser_unreadable_file_is_reported(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml: cannot be read: No such file or directory"]
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]
    os.mkfifo(tmp_path / "pipe")
    assert problems(tmp_path / "pipe") == [f"{tmp_path}/pipe: cannot be read: a named pipe; use a regular file"]


def test_parser_pipe_of_the_shell_is_read_to_its_end(file: Path) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as pipe:
        pipe.write(file.read_bytes())
        pipe.close()
        found = read(Path(f"/dev/fd/{reader}"))
    assert "/dev/fd/site does not exist" in str(found)


def test_parser_invalid_text_is_reported_with_place(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_bytes(b"services:\n  - name: \xff\n")
    assert problems(file) == [f"{file}:2:11: not UTF-8; save the file as UTF-8"]
    file.write_bytes(b"services:\n  - name: \x01\n")
    assert problems(file) == [f"{file}:2:11: character 0x1 is not allowed in YAML; remove it"]


def test_parser_ten_thousand_services_are_read(tmp_path: Path) -> None:
    service = '  - {{name: s{0}, command: [sh, "{{port}}"], hosts: [h{0}.example.com]}}\n'
    file = tmp_path / "services.yaml"
    file.write_text('listen: {http: "127.0.0.1:1"}\nservices:\n' + "".join(map(service.format, range(10_000))))
    assert len(right(file).services) == 10_000
    assert os.environ["PATH"]


def test_parser_common_values_are_shared(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    services = ", ".join(f"{{name: {name}, command: [sh, '{{port}}']}}" for name in ("web", "api"))
    path.write_text(f"{{listen: {{http: '127.0.0.1:10000'}}, services: [{services}]}}")
    found = read(path)
    assert isinstance(found, ServicesFile)
    web, api = (entry.program for entry in found.services)
    assert web.working_directory is api.working_directory
    assert web.working_directory == tmp_path
    assert [one is other for one, other in zip(web.command, api.command, strict=True)] == [True, True]
