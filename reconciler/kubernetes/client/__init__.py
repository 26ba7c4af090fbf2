"""Access to the API server: calls, informers, the work queue, discovery, and leader election."""
