"""Measurements of speed and size, each beside something run at the same time. `python -m bench`; see `__main__.py`."""
