"""Coverage-guided fuzzing of the targets: `python -m tests.fuzz --help`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz import CORPUS, FINDINGS, TARGET_NAMES

PROJECT = Path(__file__).parents[2]
ENGINE = (sys.executable, "-m", "tests.fuzz.engine")
MAX_INPUT_BYTES = 4096
MAX_INPUT_SECONDS = 10
MAX_MEMORY_MB = 2048


def main() -> int:
    """Fuzz each target in a process of its own. Return 1 if an input was found that a target does not survive."""
    options = _options()
    failed = [name for name in options.targets if _fuzz(name, options.seconds, options.keep)]
    for name in failed:
        print(
            f"fuzz: {name} failed on an input in {FINDINGS / name}; fix the fault and add the input to {CORPUS / name}"
        )
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=TARGET_NAMES, metavar="TARGET", help=", ".join(TARGET_NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="time for each target (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="add inputs that reached new code to the corpus")
    options = parser.parse_args()
    if unknown := sorted(set(options.targets) - set(TARGET_NAMES)):
        parser.error(f"unknown target: {', '.join(unknown)}; choose from {', '.join(TARGET_NAMES)}")
    return options


def _fuzz(name: str, seconds: int, keep: bool) -> bool:
    """Return whether the run found an input that fails."""
    scratch = FINDINGS / name
    scratch.mkdir(parents=True, exist_ok=True)
    print(f"fuzz: {name} for {seconds} s", flush=True)
    limits = [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}", f"-timeout={MAX_INPUT_SECONDS}"]
    failed = libfuzzer(name, *limits, "-print_final_stats=1", str(scratch), str(CORPUS / name)) != 0
    if keep and not failed:
        libfuzzer(name, "-merge=1", str(CORPUS / name), str(scratch))
        shutil.rmtree(scratch)
    return failed


def libfuzzer(name: str, *arguments: str) -> int:
    """Run libFuzzer over one target with these arguments and return its exit code."""
    command = [*ENGINE, *engine_arguments(name, *arguments)]
    return subprocess.run(command, cwd=PROJECT, check=False).returncode


def engine_arguments(name: str, *arguments: str) -> list[str]:
    """Return what the engine needs to fuzz a target; inputs that fail go to its folder of findings."""
    artifacts = FINDINGS / name
    artifacts.mkdir(parents=True, exist_ok=True)
    return [name, f"-artifact_prefix={artifacts}/failed-", f"-rss_limit_mb={MAX_MEMORY_MB}", "-verbosity=0", *arguments]


if __name__ == "__main__":
    sys.exit(main())
