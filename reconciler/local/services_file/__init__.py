"""The services file of `zenvoy up`."""

from reconciler.local.services_file.bounds import read_bounded
from reconciler.local.services_file.model import Entry, ServicesFile
from reconciler.local.services_file.parser import read
from reconciler.local.services_file.problems import FileProblem

__all__ = ["Entry", "FileProblem", "ServicesFile", "read", "read_bounded"]
