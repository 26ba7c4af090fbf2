"""Pinning of the base image and of Envoy's image by the current digests of their tags.

python scripts/pin_images.py            rewrite deploy/Dockerfile and deploy/chart/values.yaml
python scripts/pin_images.py --check    exit with 1 if a tag has another digest than the pinned one

A registry answers a HEAD request for a manifest with its digest (OCI distribution specification). Docker Hub requires
an anonymous token first, and its 401 response names the address that issues it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
VALUES = ROOT / "deploy" / "chart" / "values.yaml"
REGISTRY = os.environ.get("ZENVOY_REGISTRY", "https://registry-1.docker.io")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
BASE = re.compile(
    r"^ARG DEBIAN=docker\.io/(?P<repository>[^:@\s]+):(?P<tag>[^@\s]+)@(?P<digest>sha256:[0-9a-f]{64})$", re.M
)
ENVOY = re.compile(
    r'repository: (?P<repository>envoyproxy/envoy)\n\s*tag: (?P<tag>\S+)\n\s*digest: "(?P<digest>[^"]*)"', re.M
)
KINDS = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
TIMEOUT_SECONDS = 30


def digest_of(repository: str, tag: str) -> str:
    """Return the digest of a tag's index, for all platforms. Raises `OSError` and `ValueError`."""
    url, headers = f"{REGISTRY}/v2/{repository}/manifests/{tag}", {"Accept": KINDS}
    try:
        found = _head(url, headers)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        found = _head(url, {**headers, "Authorization": f"Bearer {_token(error.headers['WWW-Authenticate'])}"})
    if not DIGEST.fullmatch(found):
        raise ValueError(f"{url}: the registry returned no digest")
    return found


def _head(url: str, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, method="HEAD", headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        return str(answer.headers.get("Docker-Content-Digest", ""))


def _token(challenge: str) -> str:
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    query = urllib.parse.urlencode({"service": asked.get("service", ""), "scope": asked.get("scope", "")})
    with urllib.request.urlopen(f"{asked['realm']}?{query}", timeout=TIMEOUT_SECONDS) as answer:
        return str(json.load(answer)["token"])


def main() -> int:
    """Return the exit code."""
    stale = 0
    for path, pattern in ((DOCKERFILE, BASE), (VALUES, ENVOY)):
        text = path.read_text()
        pinned = pattern.search(text)
        if pinned is None:
            raise ValueError(f"{path}: no image to pin was found; write it as {pattern.pattern}")
        now = digest_of(pinned["repository"], pinned["tag"])
        if now != pinned["digest"]:
            stale += 1
            print(f"{path.relative_to(ROOT)}: {pinned['repository']}:{pinned['tag']} is {now} now")
            if "--check" not in sys.argv:
                path.write_text(text[: pinned.start("digest")] + now + text[pinned.end("digest") :])
    return int(stale > 0 and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
