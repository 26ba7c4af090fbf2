"""One question to Prometheus, and an answer that is whole: by prometheus-api-client. Counterpart: `stats.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from reconciler.adapters.prometheus.rows import Unusable
from reconciler.adapters.prometheus.settings import PrometheusSettings


class Client:
    """Blocks while it asks. `timeout` bounds each read of an answer, not the whole of it."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        session = requests.Session()
        session.verify = settings.ca_file or True
        session.hooks["response"].append(_read_once)
        once = Retry(0, read=False)  # a time-out stays a time-out
        self._prometheus = PrometheusConnect(settings.url, session=session, timeout=settings.timeout, retry=once)

    def close(self) -> None:
        self._prometheus.close()

    def ask(self, query: str) -> Any:
        """The result, a vector's rows or a scalar, of whatever shape. Raises `Unusable`."""
        try:
            self._prometheus.headers = self._headers()
            return self._prometheus.custom_query(query)
        except requests.Timeout:
            raise Unusable("it did not answer in time") from None
        except requests.ConnectionError:
            raise Unusable("it cannot be reached") from None
        except (requests.RequestException, PrometheusApiClientException, OSError) as error:
            raise Unusable(str(error)[:200]) from error

    def _headers(self) -> dict[str, str]:
        headers = dict(self._settings.headers or {})
        if self._settings.bearer_token_file:
            headers["Authorization"] = f"Bearer {Path(self._settings.bearer_token_file).read_text().strip()}"
        return headers


def _read_once(response: requests.Response, *_: Any, **__: Any) -> None:
    """Partial data comes with warnings, or as `isPartial` from VictoriaMetrics; the client drops both."""
    if response.status_code != 200:
        return
    whole = msgspec.json.decode(response.content)
    if warnings := whole.get("warnings"):
        raise Unusable(f"it warns: {', '.join(map(str, warnings))}"[:200])
    if whole.get("isPartial"):
        raise Unusable("its answer is partial")
    response.json = lambda **_: whole  # type: ignore[method-assign]
