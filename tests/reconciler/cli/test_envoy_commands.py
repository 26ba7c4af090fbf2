"""`zenvoy bootstrap` and `zenvoy drain-envoy`, and `zenvoy doctor` for a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from reconciler.cli.main import app
from tests.ports import free_port

CERTIFICATES = ("--tls-cert=/tls/tls.crt", "--tls-key=/tls/tls.key", "--tls-ca=/tls/ca.crt")


def zenvoy(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def test_bootstrap_directory_receives_all_files(tmp_path: Path) -> None:
    where = ("--reconciler=zenvoy-reconciler.zenvoy-system.svc:18000", "--node=pod-1", "--stats-address=10.0.0.7:9902")
    code, said = zenvoy("bootstrap", *where, *CERTIFICATES, "--directory", str(tmp_path))
    assert code == 0, said
    written = sorted(path.name for path in tmp_path.iterdir())
    assert {Path(line.removeprefix("wrote ")).name for line in said.splitlines()} == set(written)
    made = yaml.safe_load((tmp_path / "envoy.yaml").read_text())
    assert made["node"]["id"] == "pod-1"
    assert made["node"]["metadata"] == {"zenvoy": {"stats": "10.0.0.7:9902"}}
    socket = next(one for one in made["static_resources"]["clusters"] if one["name"] == "zenvoy_ads")[
        "transport_socket"
    ]
    assert socket["typed_config"]["sni"] == "zenvoy-reconciler.zenvoy-system.svc"
    assert len(written) == 4


@pytest.mark.parametrize("text", ["fd00::7:9902", "[fd00::7]:9902"])
def test_bootstrap_statistics_at_an_ipv6_address(text: str, tmp_path: Path) -> None:
    """A pod's manifest can only write `$(POD_IP):9902`."""
    code, said = zenvoy("bootstrap", f"--stats-address={text}", "--directory", str(tmp_path))
    assert code == 0, said
    made = yaml.safe_load((tmp_path / "envoy.yaml").read_text())
    assert made["node"]["metadata"] == {"zenvoy": {"stats": "[fd00::7]:9902"}}
    listeners = [one["address"]["socket_address"] for one in made["static_resources"]["listeners"]]
    assert ("fd00::7", 9902) in [(one["address"], one["port_value"]) for one in listeners]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (CERTIFICATES, "certificates need --directory"),
        (("--tls-cert=/tls/tls.crt", "--directory={}"), "--tls-cert, --tls-key and --tls-ca go together"),
        (("--tls-cert=tls.crt", *CERTIFICATES[1:], "--directory={}"), "write it as an absolute path"),
        (("--stats-address=9902",), "is not ip:port; use for example"),
        (("--reconciler=nowhere",), "write it as host:port"),
    ],
)
def test_bootstrap_invalid_options_are_usage_errors(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, printed = zenvoy("bootstrap", *(word.format(tmp_path) for word in arguments))
    assert (code, said in printed) == (2, True), printed


def test_drain_without_envoy_fails() -> None:
    code, said = zenvoy("drain-envoy", f"--admin=127.0.0.1:{free_port()}")
    assert code == 1
    assert "refused" in said


def test_doctor_one_service_is_singular(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    listen = f"listen: {{http: 127.0.0.1:{free_port()}}}"
    file.write_text(f"{listen}\nservices:\n- {{name: web, hosts: [web.test], command: [sleep], port: 9001}}\n")
    _, said = zenvoy("doctor", str(file), "--state-dir", str(tmp_path / "state"))
    assert "services file  1 service\n" in said
    file.write_text("listen: {}\n")
    _, said = zenvoy("doctor", str(file), "--state-dir", str(tmp_path / "state"))
    assert "services file  1 mistake\n" in said
