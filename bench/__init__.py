"""Measurements of speed and size, each with a reference from the same run."""
