"""Checks of `zenvoy doctor`, for one machine and for a cluster, and their findings."""
