"""A hostile services file stops nothing: neither a reload, nor a start of the reconciler, nor one of `zenvoy up`."""

from __future__ import annotations

from tests.e2e.conftest import Start
from tests.e2e.harness import SLOW_TO_SLEEP, Zenvoy, quick, request, until
from tests.security.hostile_files import HOSTILE

MISTAKES = "the file has mistakes; keeping the last valid content"


def _write(z: Zenvoy, case: str) -> None:
    fresh = z.file.with_suffix(".new")
    fresh.write_bytes(HOSTILE[case].encode(errors="surrogateescape"))
    fresh.replace(z.file)


def test_reload_hostile_file_keeps_the_last_good_one(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=SLOW_TO_SLEEP)
    good, before = z.file.read_text(), z.pids()
    for case in ("nested lists", "a number of 5,000 digits", "billion laughs", "17 MiB", "not UTF-8"):
        said = len(z.lines())
        _write(z, case)
        z.wait_line(f"{case} is reported", lambda entry: entry["event"] == MISTAKES, said)
        assert request(z.http_port, "web", "/a").body == b"web /a\n"
    assert z.pids() == before, "nothing was started again"
    said = len(z.lines())
    z.kill("reconciler")
    z.wait_line("it is reported again", lambda entry: entry["event"] == MISTAKES, said)
    assert request(z.http_port, "web", "/b").body == b"web /b\n"
    _write(z, "nested lists")
    assert z.stop() == 0
    z.start()
    assert request(z.http_port, "web", "/c").body == b"web /c\n"
    until("it is reported", lambda: "using its last good content" in z.log_path.read_text())
    z.file.write_text(good.replace("name: web", "name: other"))
    z.wait_line("it is applied", lambda entry: entry["event"] == "the file is applied")
    until("Envoy has it", lambda: request(z.http_port, "other", "/d").status == 200)
