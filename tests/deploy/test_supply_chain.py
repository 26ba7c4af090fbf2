"""Pinned and listed contents of the image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.M)
OTHER = "sha256:" + "5" * 64


def test_base_images_are_pinned_by_digest() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.M))
    pinned = {f"${{{name}}}" for name in re.findall(r"^ARG (\w+)=\S+@sha256:[0-9a-f]{64}$", text, re.M)}
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) <= stages | pinned


def test_sbom_lists_exactly_the_runtime_lock() -> None:
    document = json.loads((ROOT / "deploy" / "sbom.cdx.json").read_text())
    lock = (ROOT / "requirements-runtime.lock").read_text()
    assert document["bomFormat"] == "CycloneDX"
    listed = {(one["name"], one["version"]) for one in document["components"]}
    assert listed == set(LOCKED.findall(lock)), "run make sbom"
    hashes = {
        one["content"]
        for component in document["components"]
        for reference in component["externalReferences"]
        for one in reference["hashes"]
    }
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))


def test_sbom_equals_the_output_of_the_generator() -> None:
    made = subprocess.run(
        [sys.executable, "scripts/sbom.py", "--print"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert (ROOT / "deploy" / "sbom.cdx.json").read_text() == made.stdout, "run make sbom"


class Registry(BaseHTTPRequestHandler):
    """A registry like Docker Hub: it requires a token per repository, and names the address that issues it."""

    def do_GET(self) -> None:
        body = json.dumps({"token": self.path.rpartition("%3A")[0].rpartition("%3A")[2]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        repository = self.path.removeprefix("/v2/").partition("/manifests/")[0]
        if self.headers["Authorization"] != f"Bearer {repository.replace('/', '%2F')}":
            realm = f"http://{self.headers['Host']}/token"
            challenge = f'Bearer realm="{realm}",service="registry",scope="repository:{repository}:pull"'
            self.send_response(401)
            self.send_header("WWW-Authenticate", challenge)
        else:
            self.send_response(200)
            self.send_header("Docker-Content-Digest", OTHER)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, text: str, *values: object) -> None:
        """Do not log requests."""


@pytest.fixture
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "http://{}:{}".format(*server.server_address)
    server.shutdown()
    server.server_close()


def test_pin_images_updates_changed_digests(tmp_path: Path, registry: str) -> None:
    for name in ("scripts/pin_images.py", "deploy/Dockerfile", "deploy/chart/values.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    environment = {**os.environ, "ZENVOY_REGISTRY": registry}

    def run(*arguments: str) -> int:
        command = [sys.executable, str(tmp_path / "scripts" / "pin_images.py"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode

    assert run("--check") == 1
    assert (tmp_path / "deploy/Dockerfile").read_text() == (ROOT / "deploy/Dockerfile").read_text()
    assert run() == 0
    assert f"debian:bookworm-slim@{OTHER}\n" in (tmp_path / "deploy/Dockerfile").read_text()
    assert f'digest: "{OTHER}"' in (tmp_path / "deploy/chart/values.yaml").read_text()
    assert run("--check") == 0
