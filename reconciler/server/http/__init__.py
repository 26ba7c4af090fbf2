"""HTTP by aiohttp: the control socket, and the ports for metrics, health and readings."""

from reconciler.server.http.connections import report_exhaustion
from reconciler.server.http.server import Http

__all__ = ["Http", "report_exhaustion"]
