"""Errors between a user and a cluster; each message says how to fix it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.kubernetes.client.errors import ApiError, NoCluster, Unreachable
from reconciler.kubernetes.types.names import InvalidName

INSTALL = "install it there (helm install zenvoy deploy/chart -n zenvoy-system --create-namespace), or name another"


class ClusterError(Exception):
    """An error with a message for the user."""


class ClusterUnreachable(ClusterError):
    """There is no cluster, it does not answer, or zenvoy is not installed in it."""


class NoSuchService(ClusterError):
    """The ScaledService does not exist."""


class RequestRefused(ClusterError):
    """The API server refused a request."""


@asynccontextmanager
async def translated_errors(server: str = "") -> AsyncIterator[None]:
    """Raise `ClusterError` in the place of errors of the API server and of the connection to it."""
    try:
        yield
    except NoCluster as error:
        raise ClusterUnreachable(str(error)) from None
    except Unreachable as error:
        raise ClusterUnreachable(
            f"the API server {server} does not answer ({error}); check the network, or name another context with "
            "--context"
        ) from None
    except ApiError as error:
        raise translate(server, error) from None
    except InvalidName as error:
        raise NoSuchService(f"{error}; a Kubernetes name consists of a-z, 0-9, - and ., at most 253 of them") from None


def translate(server: str, error: ApiError) -> ClusterError:
    """Return the error for the user that corresponds to a refused request."""
    if error.status == 401:
        return ClusterUnreachable(
            f"{server} does not accept your credentials ({error.message}); log in again, or name another context with "
            "--context"
        )
    if error.status == 403:
        return RequestRefused(f"{server} denied the request: {error.message}; ask an administrator for the permission")
    return RequestRefused(f"{server} refused the request: {error}")
