"""One question to Prometheus, and an answer that is whole: by prometheus-api-client. Counterpart: `stats.py`.

An answer is not trusted: redirects are not followed, nothing is decompressed, and size, depth and time are bounded. The
words that say what is wrong with one are our own, never bytes of the answer.
"""

from __future__ import annotations

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

from reconciler.envoy.prometheus.rows import Unusable
from reconciler.envoy.prometheus.settings import PrometheusSettings, read_headers, read_secret

MOST_BYTES_PER_ENVOY = 48_000_000
"""10,000 services, six figures each, twice 400 bytes a row: labels of a scrape's job come with each."""
MOST_BYTES = 512_000_000
_CHUNK_BYTES = 262_144


class Client:
    """A blocking client. `timeout` bounds each read of an answer; `most` the whole of it."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        session = requests.Session()
        session.verify = settings.ca_file or True
        once = Retry(0, read=False)  # a time-out stays a time-out
        self._prometheus = PrometheusConnect(settings.url, session=session, timeout=settings.timeout, retry=once)
        self._bounded = _Bounded(settings.most, once)
        session.mount(settings.url, self._bounded)

    def close(self) -> None:
        self._prometheus.close()

    def ask(self, query: str, envoys: int = 1) -> Any:
        """Return the result, a vector's rows or a scalar, of whatever shape; its size may be that of so many Envoys.

        Raises `Unusable`.
        """
        self._bounded.most_bytes = min(MOST_BYTES, MOST_BYTES_PER_ENVOY * max(1, envoys))
        try:
            self._prometheus.headers = self._headers()
            return self._prometheus.custom_query(query)
        except requests.Timeout:
            raise Unusable("it did not answer in time") from None
        except requests.ConnectionError:
            raise Unusable("it cannot be reached") from None
        except OSError as error:
            if isinstance(error, requests.RequestException):
                raise Unusable(f"its answer is not valid HTTP ({type(error).__name__})") from None
            raise Unusable(f"the file with its headers or its bearer token cannot be read: {error.strerror}") from error
        except PrometheusApiClientException:
            raise Unusable("it answered with an error") from None

    def _headers(self) -> dict[str, str]:
        settings = self._settings
        try:
            headers = dict(read_headers(settings.headers_file)) if settings.headers_file else {}
            if settings.bearer_token_file:
                headers["Authorization"] = f"Bearer {read_secret(settings.bearer_token_file)}"
        except ValueError as error:
            raise Unusable(str(error)[:200]) from None
        return {**headers, "Accept-Encoding": "identity"}


class _Answer(requests.Response):
    """An answer whose JSON is decoded within bounds, and is whole."""

    def json(self, **_: Any) -> Any:
        """Return the decoded body. Raises `Unusable` for one that is partial or too deep, `ValueError` for no JSON.

        Partial data comes with warnings, or as `isPartial` from VictoriaMetrics; the client drops both.
        """
        try:
            whole = msgspec.json.decode(self.content)
        except RecursionError:
            raise Unusable("its answer is nested too deep") from None
        if whole.get("warnings"):
            raise Unusable("it has warnings, so its answer may be partial")
        if whole.get("isPartial"):
            raise Unusable("its answer is partial")
        return whole


class _Bounded(HTTPAdapter):
    """A transport that takes no more than `most_bytes` in `most_seconds`, as they are, from the address configured."""

    def __init__(self, most_seconds: float, retry: Retry) -> None:
        super().__init__(max_retries=retry)
        self._most_seconds = most_seconds
        self.most_bytes = MOST_BYTES_PER_ENVOY

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        answer = _Answer()
        answer.__dict__.update(super().build_response(req, resp).__dict__)
        return answer

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request, and read its answer. Raises `Unusable`."""
        deadline = time.monotonic() + self._most_seconds
        response = super().send(request, *args, **{**options, "stream": True})
        try:
            if response.is_redirect:
                raise Unusable(f"HTTP status {response.status_code}: it redirects, which is not followed")
            if response.status_code != 200:
                raise Unusable(f"HTTP status {response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise Unusable("its answer is encoded, and was asked for plain")
            body = self._read(response, deadline)
        finally:
            response.close()
        response.raw = BytesIO(body)
        return response

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        body = bytearray()
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                body += chunk
                if len(body) > self.most_bytes:
                    raise Unusable(f"its answer has over {self.most_bytes} bytes")
                if time.monotonic() > deadline:
                    raise Unusable(f"its answer is not whole after {self._most_seconds:g} s")
        except ReadTimeoutError:
            raise Unusable("it did not answer in time") from None
        except HTTPError:
            raise Unusable("its answer is cut short") from None
        return bytes(body)
