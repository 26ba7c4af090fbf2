"""The process in which libFuzzer calls a target.

`python -m tests.fuzz.engine TARGET [libFuzzer's options]` fuzzes one target. Without arguments it reads such words from
each line of its standard input, fuzzes in a fork, and prints the exit code: importing the product with instrumentation
takes longer than a short run.
"""

from __future__ import annotations

import os
import shlex
import sys

import atheris

with atheris.instrument_imports(include=["reconciler", "xds", "tproxy"]):
    from tests.fuzz.targets import TARGETS


def fuzz(name: str, *options: str) -> None:
    """Fuzz a target, and end the process."""
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


def fork(words: list[str]) -> int:
    """Fuzz in a fork, and return its exit code."""
    child = os.fork()
    if not child:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libFuzzer's words are not the answer
        fuzz(*words)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fuzz(*sys.argv[1:])
    for line in sys.stdin:
        print(fork(shlex.split(line)), flush=True)
