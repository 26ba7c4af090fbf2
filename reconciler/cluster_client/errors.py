"""What can go wrong between a person and a cluster; each is told in words that say what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.kubernetes.client.errors import ApiError, NoCluster, Unreachable
from reconciler.kubernetes.types.names import InvalidName

INSTALL = "install zenvoy there (helm install zenvoy deploy/chart -n zenvoy-system --create-namespace), or name another"


class Trouble(Exception):
    """A person can do something about it; its words."""


class NotReached(Trouble):
    """There is no cluster, it does not answer, or zenvoy is not installed in it."""


class NoSuch(Trouble):
    """There is no such service."""


class Refused(Trouble):
    """The API server said no."""


@asynccontextmanager
async def told(server: str = "") -> AsyncIterator[None]:
    """Turn what the API server, or the way to it, has to say into trouble."""
    try:
        yield
    except NoCluster as error:
        raise NotReached(str(error)) from None
    except Unreachable as error:
        raise NotReached(f"the API server {server} does not answer ({error}); is it the right --context?") from None
    except ApiError as error:
        raise refused(server, error) from None
    except InvalidName as error:
        raise NoSuch(f"{error}; names of Kubernetes have at most 253 of a-z, 0-9, - and .") from None


def refused(server: str, error: ApiError) -> Trouble:
    """What a refusal means for a person."""
    if error.status == 401:
        return NotReached(f"{server} does not know you ({error.message}); log in to it, or name another --context")
    if error.status == 403:
        return Refused(f"{server} forbids it: {error.message}")
    return Refused(f"{server} refused: {error}")
