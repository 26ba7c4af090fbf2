"""The checks of `zenvoy doctor`, on one machine and in a cluster, and their findings."""
