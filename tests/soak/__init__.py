"""The soak: random traffic and random faults for a long time. `python -m tests.soak --help`."""
