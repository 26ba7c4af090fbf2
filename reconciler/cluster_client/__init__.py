"""What the CLI does against a cluster: it reads ScaledServices, asks the controller, tells both; it decides nothing."""
