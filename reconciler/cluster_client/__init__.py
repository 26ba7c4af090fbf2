"""A client of one cluster for the CLI: reads ScaledServices, queries the controller, and writes commands."""
