"""The wiring: the only place that knows every part, and with the CLI the only one that may end the process."""
