"""zenvoy's own run of the pods' probes, during wakes."""
