"""Results that are written back to Kubernetes: status, Events, finalizers, and restored replicas."""
