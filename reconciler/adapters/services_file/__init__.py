"""The services file of `zenvoy up`."""

from reconciler.adapters.services_file.bounds import read_bounded
from reconciler.adapters.services_file.model import Entry, ServicesFile
from reconciler.adapters.services_file.problems import Problem
from reconciler.adapters.services_file.reading import read

__all__ = ["Entry", "Problem", "ServicesFile", "read", "read_bounded"]
