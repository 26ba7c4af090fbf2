"""The wiring: the only place that knows every part, and the only one besides the CLI that may end the process."""
