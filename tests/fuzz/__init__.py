"""Fuzzing of everything that arrives from outside: peers, clients, files, objects, and statistics.

`targets.py` has one function per input. `corpus/` keeps inputs that reached new code or once failed. `make fuzz` looks
for more with coverage guidance; `test_corpus.py` repeats the corpus and makes a short run in each test run.
"""

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
FINDINGS = Path(__file__).parents[2] / ".fuzz"
"""Failing inputs and new inputs of earlier runs. Not part of the repository."""
TARGET_NAMES = sorted(path.name for path in CORPUS.iterdir())
