"""The soak: random traffic and random kills for a long time. `python -m tests.soak --help`."""
