"""The process backend: services as processes of this machine."""
