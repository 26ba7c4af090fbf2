"""The configuration of services: ScaledServices and Services in, problems and effective configurations out."""
