"""One machine: services from a file, programs as workloads, records in SQLite."""
