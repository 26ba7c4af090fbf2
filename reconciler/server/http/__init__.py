"""HTTP by aiohttp: the control socket, and the ports for metrics, health and readings."""
