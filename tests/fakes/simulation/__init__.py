"""A simulation of one service: clients, Envoys, holders, pods, and any number of replicas of the reconciler."""
