"""pgbench, psql, and pg_dump: every protocol that PostgreSQL's own clients use, over TCP."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Outcome, Record
from tests.conformance.programs import listening, run
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy, until

pytestmark = pytest.mark.postgres
EXAMPLE = Path(__file__).parents[2] / "examples" / "postgres"
CLIENTS, TRANSACTIONS = 4, 25
PIPELINE = "\\startpipeline\nselect 1;\nselect generate_series(1, 100);\nselect repeat('x', 10000);\n\\endpipeline\n"
BENCHMARKS = {
    "initialize": ["-i", "-I", "dtgvpf", "-q"],
    **{
        f"{script}-{protocol}": ["-b", script, "-M", protocol]
        for script in ("tpcb-like", "simple-update", "select-only")
        for protocol in ("simple", "extended", "prepared")
    },
    "connection-for-each": ["-b", "select-only", "-C"],
    "pipeline": ["-f", "pipeline.sql", "-M", "extended"],
    "pipeline-prepared": ["-f", "pipeline.sql", "-M", "prepared"],
}
COPIED = """create temporary table copied (n int, filler text, raw bytea);
insert into copied
select n, repeat(chr(65 + n % 26), n % 500), decode(md5(n::text), 'hex') from generate_series(1, 5000) n;
"""
SCRIPTS = {
    "types": "select n, n::numeric / 7, md5(n::text), n % 2 = 0, array[n], row(n, 'a') from generate_series(1, 9) n;",
    "wide": "select repeat('ü', 100000);",
    "empty": "select; ; select where false; select null;",
    "error": "select 1 / 0; select 'continues';",
    "notice": "do $$ begin raise notice 'a notice'; raise warning 'a warning'; end $$;",
    "transaction": "begin; select 1; savepoint a; select 1 / 0; rollback to a; commit; select 'done';",
    "notify": "listen channel; notify channel, 'a payload'; select 1;",
    "cursor": "begin; declare c cursor for select generate_series(1, 500); fetch 3 c; move 300 c; fetch 2 c; commit;",
    "fetch-count": "\\set FETCH_COUNT 10\nselect generate_series(1, 1000);",
    "describe": "\\gdesc\nselect 1 as a, 'x'::text as b \\gdesc\nselect 'select 1' \\gexec\n\\d pg_class",
    "copy-out": COPIED + "copy copied to stdout;",
    "copy-binary": COPIED + "\\copy copied to program 'md5sum' (format binary)",
    "copy-in": "create temporary table c (n int, t text);\ncopy c from stdin;\n1\tone\n2\t\\N\n\\.\nselect * from c;",
    "copy-wrong": "create temporary table c (n int);\ncopy c from stdin;\nnone\n\\.\nselect count(*) from c;",
    "large-object": "\\lo_import large.txt\nselect length(lo_get(:LASTOID));\nselect lo_unlink(:LASTOID);",
    "time-limit": "set statement_timeout = 50; select pg_sleep(60); select 'continues';",
    "terminated": "select pg_terminate_backend(pg_backend_pid());",
}
"""Scripts for psql, whose output is compared."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Provide a folder that every user can reach: PostgreSQL does not run as root."""
    made = Path(tempfile.mkdtemp(prefix="zenvoy-conformance-", dir="/tmp"))
    made.chmod(0o711)
    (made / "pipeline.sql").write_text(PIPELINE)
    (made / "large.txt").write_text("large " * 100_000)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def direct(folder: Path) -> Iterator[int]:
    """The port of PostgreSQL without zenvoy, once it accepts clients."""
    with listening(server(folder / "direct")) as port:
        until("PostgreSQL accepts clients", lambda: run(str(EXAMPLE / "ready.sh"), str(port)).returncode == 0)
        assert not pgbench(port, folder, "initialize")
        yield port


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start, folder: Path) -> Zenvoy:
    ready = {"command": [str(EXAMPLE / "ready.sh"), "{port}"]}
    service = {
        "name": "db",
        "protocol": "tcp",
        "command": server(folder / "db"),
        "ready": ready,
        "stopSignal": "SIGINT",
    }
    z = shared_zenvoy(service, defaults={**SLOW_TO_SLEEP, "wakeTimeout": "60s", "holdTimeout": "60s"})
    assert not pgbench(z.port("db"), folder, "initialize")
    return z


def server(data: Path) -> list[str]:
    """Return the command of examples/postgres, without waiting for the disk."""
    return [str(EXAMPLE / "postgres.sh"), "{port}", str(data), "-c", "fsync=off", "-c", "max_wal_senders=0"]


def address(port: int) -> list[str]:
    return ["-h", LOCAL, "-p", str(port), "-U", "postgres"]


def pgbench(port: int, folder: Path, name: str) -> str | None:
    """Run a benchmark, and return its output if a transaction failed."""
    options = [str(folder / word) if word.endswith(".sql") else word for word in BENCHMARKS[name]]
    if name != "initialize":
        options += ["-n", "-c", str(CLIENTS), "-j", "2", "-t", str(TRANSACTIONS)]
    done = run("pgbench", *address(port), *options, "postgres")
    all_done = f"transactions actually processed: {CLIENTS * TRANSACTIONS}/{CLIENTS * TRANSACTIONS}"
    if done.returncode == 0 and (name == "initialize" or all_done in done.stdout):
        return None
    return done.stdout or f"exit code {done.returncode}"


def psql(port: int, folder: Path, script: str) -> str:
    """Run a script, and return its output without the numbers that the server chooses."""
    (folder / "script.sql").write_text(script.replace("large.txt", str(folder / "large.txt")))
    done = run("psql", "-X", "-a", *address(port), "-f", str(folder / "script.sql"), "postgres")
    output = re.sub(r"(?<=server process with PID )\d+|(?<=lo_import )\d+|port \d+", "N", done.stdout)
    return f"{done.returncode}\n{output}"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_pgbench_through_zenvoy_loses_no_transaction(
    z: Zenvoy, direct: int, folder: Path, record: Record, name: str
) -> None:
    z.sleep("db")
    asleep = pgbench(z.port("db"), folder, name)
    z.wake("db")
    outcome = Outcome(pgbench(direct, folder, name), asleep, pgbench(z.port("db"), folder, name))
    record("pgbench", outcome)
    assert not outcome.failed(), outcome


@pytest.mark.parametrize("name", SCRIPTS)
def test_psql_through_zenvoy_has_the_same_output(
    z: Zenvoy, direct: int, folder: Path, record: Record, name: str
) -> None:
    z.sleep("db")
    asleep = psql(z.port("db"), folder, SCRIPTS[name])
    z.wake("db")
    expected, awake = psql(direct, folder, SCRIPTS[name]), psql(z.port("db"), folder, SCRIPTS[name])
    differs = {way: None if output == expected else output for way, output in (("asleep", asleep), ("awake", awake))}
    record("psql", Outcome(None, **differs))
    assert (asleep, awake) == (expected, expected)


def test_pg_dump_through_zenvoy_is_the_same_and_restores(z: Zenvoy, direct: int, folder: Path, record: Record) -> None:
    """The same data are dumped from both ways, and restored through each."""
    target, dump = str(z.port("db")), folder / "dump"
    differences = {}
    for way in ("asleep", "awake"):
        if way == "asleep":
            z.sleep("db")
        made = run("pg_dump", *address(int(target)), "-Fc", "-f", str(dump), "-t", "pgbench_*", "postgres")
        assert made.returncode == 0, made.stdout
        restored = run("pg_restore", *address(int(target)), "--clean", "-d", "postgres", str(dump))
        differences[way] = restored.stdout if restored.returncode else None
    count = "select count(*), sum(aid) from pgbench_accounts;"
    record("pg_dump, pg_restore", Outcome(None, **differences))
    assert not any(differences.values())
    assert psql(int(target), folder, count) == psql(direct, folder, count)
