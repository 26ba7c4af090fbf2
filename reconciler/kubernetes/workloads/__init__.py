"""The workloads of services: scaling, endpoints, and the diagnosis of workloads that do not become ready."""
