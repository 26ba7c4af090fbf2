"""The network servers of a reconciler: HTTP, the holders' streams, their credentials and limits."""
