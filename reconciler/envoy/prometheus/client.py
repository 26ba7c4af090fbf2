"""A client for Prometheus' query API, by prometheus-api-client. Counterpart: `stats.py`.

An answer is not trusted: redirects are not followed, nothing is decompressed, and size, depth and time are bounded.
Error messages never contain bytes of the answer.
"""

from __future__ import annotations

import os
import ssl
import time
from io import BytesIO
from typing import Any

import msgspec
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.util.retry import Retry
from urllib3.util.ssl_ import create_urllib3_context

from reconciler.envoy.admin_stats import UnusableStatsError
from reconciler.envoy.prometheus.settings import PrometheusSettings, read_headers, read_secret
from reconciler.proxy_environment import proxy_for

BYTES_PER_ENVOY_MAX = 48_000_000
"""10,000 services with six figures each, and twice 400 bytes a row: each row repeats the labels of its scrape job."""
BYTES_MAX = 512_000_000
_CHUNK_BYTES = 262_144


class Client:
    """A blocking client. `timeout` bounds each read of an answer, `seconds_max` the whole answer."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        session = requests.Session()
        session.verify = settings.ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or True
        # requests would use the proxy of the environment for this machine and for Services of the cluster too.
        session.trust_env = False
        if proxy := proxy_for(settings.url, os.environ):
            session.proxies = {"http": proxy, "https": proxy}
        once = Retry(0, read=False)  # a timeout is raised as a timeout
        self._prometheus = PrometheusConnect(settings.url, session=session, timeout=settings.timeout, retry=once)
        self._transport = _Transport(settings.seconds_max, once)
        session.mount(settings.url, self._transport)

    def close(self) -> None:
        self._prometheus.close()

    def query(self, text: str, envoys: int = 1) -> Any:
        """Return the result of a query: the rows of a vector, or a scalar. Its shape is not checked.

        `envoys` is the number of Envoys that the result may describe; it bounds the size.
        Raises `UnusableStatsError`, and `ValueError` for an answer that is not JSON.
        """
        self._transport.bytes_max = min(BYTES_MAX, BYTES_PER_ENVOY_MAX * max(1, envoys))
        try:
            self._prometheus.headers = self._headers()
            return self._prometheus.custom_query(text)
        except requests.Timeout:
            raise UnusableStatsError("it did not answer in time") from None
        except requests.ConnectionError:
            raise UnusableStatsError("it cannot be reached") from None
        except RecursionError:
            raise UnusableStatsError("its answer is nested too deeply") from None
        except OSError as error:
            if isinstance(error, requests.RequestException):
                raise UnusableStatsError(f"its answer is not valid HTTP ({type(error).__name__})") from None
            raise UnusableStatsError(f"its file of headers or its token cannot be read: {error.strerror}") from error
        except PrometheusApiClientException:
            raise UnusableStatsError("it answered with an error") from None

    def _headers(self) -> dict[str, str]:
        settings = self._settings
        try:
            headers = dict(read_headers(settings.headers_file)) if settings.headers_file else {}
            if settings.bearer_token_file:
                headers["Authorization"] = f"Bearer {read_secret(settings.bearer_token_file)}"
        except ValueError as error:
            raise UnusableStatsError(str(error)[:200]) from None
        return {**headers, "Accept-Encoding": "identity"}


class _Envelope(msgspec.Struct):
    """The marks of partial data in an answer, which prometheus-api-client drops."""

    warnings: Any = None
    is_partial: Any = msgspec.field(default=None, name="isPartial")
    """Set by VictoriaMetrics."""


class _Transport(HTTPAdapter):
    """A transport that bounds an answer in size and time, and refuses one that is not complete."""

    def __init__(self, seconds_max: float, retry: Retry) -> None:
        self._tls = create_urllib3_context()
        # A cluster's CA may lack extensions that newer versions of Python require by default.
        self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        super().__init__(max_retries=retry)
        self._seconds_max = seconds_max
        self.bytes_max = BYTES_PER_ENVOY_MAX

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Create the pool, with our TLS context."""
        super().init_poolmanager(*args, **{**options, "ssl_context": self._tls})

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pool for a proxy, with our TLS context."""
        return super().proxy_manager_for(proxy, **{**options, "ssl_context": self._tls})

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request and read its answer. Raises as `Client.query` does."""
        deadline = time.monotonic() + self._seconds_max
        response = super().send(request, *args, **{**options, "stream": True})
        try:
            if response.is_redirect:
                raise UnusableStatsError(f"HTTP status {response.status_code}: redirects are not followed")
            if response.status_code != 200:
                raise UnusableStatsError(f"HTTP status {response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise UnusableStatsError("its answer is compressed, although plain text was requested")
            body = self._read(response, deadline)
        finally:
            response.close()
        envelope = msgspec.json.decode(body, type=_Envelope)
        if envelope.warnings:
            raise UnusableStatsError("it has warnings, so its answer may be partial")
        if envelope.is_partial:
            raise UnusableStatsError("its answer is partial")
        response.raw = BytesIO(body)
        response.encoding = "utf-8"  # JSON is; the answer's own claim is not trusted, and guessing is slow
        return response

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        body = bytearray()
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                body += chunk
                if len(body) > self.bytes_max:
                    raise UnusableStatsError(f"its answer exceeds {self.bytes_max} bytes")
                if time.monotonic() > deadline:
                    raise UnusableStatsError(f"its answer is not complete after {self._seconds_max:g} s")
        except ReadTimeoutError:
            raise UnusableStatsError("it did not answer in time") from None
        except HTTPError:
            raise UnusableStatsError("its answer is cut short") from None
        return bytes(body)
