"""Data types of Kubernetes objects, and the rules of their names. Pure."""
