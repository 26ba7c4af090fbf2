"""Access of other users of the machine to a running `zenvoy up`: command lines and sockets."""

from __future__ import annotations

import stat
from pathlib import Path

import psutil

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, quick
from tests.ports import free_port

SECRET = "c2VjcmV0LXRva2Vu"


def test_secrets_are_on_no_command_line_and_in_no_log(zenvoy: Start, tmp_path: Path) -> None:
    headers, token = tmp_path / "headers", tmp_path / "token"
    headers.write_text(f"X-Scope-OrgID: shop\nX-Api-Key: {SECRET}\n")
    token.write_text(SECRET)
    options: tuple[str, ...] = ("--prometheus", f"http://{LOCAL}:9", "--metrics", f"{LOCAL}:{free_port()}")
    options += ("--prometheus-headers-file", str(headers), "--prometheus-bearer-token-file", str(token))
    z = zenvoy({"name": "web", "command": quick("http")}, options=options)
    assert z.process
    root = psutil.Process(z.process.pid)
    lines = [" ".join(process.cmdline()) for process in (root, *root.children(recursive=True))]
    assert len(lines) >= 4
    assert any(str(headers) in line for line in lines)
    assert not [line for line in lines if SECRET in line]
    headers.write_text(f"X-Api-Key {SECRET}\n")
    what = f"{headers}: line 1 is not a header"
    z.wait_status("it is reported", "web", lambda _: what in z.cli("explain", "web").stdout)
    assert SECRET not in z.logs() and SECRET not in z.cli("explain", "web").stdout


def test_sockets_are_private_for_any_umask(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, prefix=("sh", "-c", 'umask 0; exec "$@"', "sh"))
    found = {path.name: path.stat().st_mode for path in z.state_dir.iterdir() if path.is_socket()}
    assert found.keys() == {"control.sock", "reconciler.sock", "envoy.sock", "holder.sock", "keeper.sock"}
    assert {stat.S_IMODE(mode) for mode in found.values()} == {0o600}, found
    assert stat.S_IMODE(z.state_dir.stat().st_mode) == 0o700
