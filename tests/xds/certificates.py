"""Certificates for tests, by the openssl command, kept as Kubernetes keeps a mounted Secret."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """A CA."""

    directory: Path
    name: str

    @property
    def certificate(self) -> bytes:
        return (self.directory / f"{self.name}.crt").read_bytes()

    def issue(self, subject: str) -> tuple[bytes, bytes]:
        """Key and certificate for a DNS name."""
        key, request, certificate, names = (self.directory / f"{subject}.{end}" for end in ("key", "csr", "crt", "ext"))
        names.write_text(f"subjectAltName=DNS:{subject}\n")
        made = (
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            key,
            "-subj",
            f"/CN={subject}",
        )
        _openssl("req", "-new", *made, "-out", request)
        ca = ("-CA", self.directory / f"{self.name}.crt", "-CAkey", self.directory / f"{self.name}.key")
        _openssl(
            "x509", "-req", "-in", request, *ca, "-CAcreateserial", "-days", "2", "-extfile", names, "-out", certificate
        )
        return key.read_bytes(), certificate.read_bytes()


def authority(directory: Path, name: str) -> Authority:
    """Make a CA in a directory."""
    directory.mkdir(exist_ok=True)
    key, certificate = directory / f"{name}.key", directory / f"{name}.crt"
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-subj", f"/CN={name}")
    _openssl("req", "-x509", *made, "-days", "2", "-out", certificate)
    return Authority(directory, name)


class Mounted:
    """A directory that is replaced as a mounted Secret is: by moving one symbolic link."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = 0

    def write(self, **content: bytes) -> None:
        """Replace everything at once; `tls_crt` is the file `tls.crt`."""
        self._version += 1
        version = self.path / f"..{self._version}"
        version.mkdir(parents=True)
        for name, data in content.items():
            (version / name.replace("_", ".")).write_bytes(data)
            link = self.path / name.replace("_", ".")
            if not link.is_symlink():
                link.symlink_to(Path("..data") / link.name)
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.replace(self.path / "..data")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
