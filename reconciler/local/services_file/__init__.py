"""The services file of `zenvoy up`."""

from reconciler.local.services_file.bounds import read_bounded
from reconciler.local.services_file.model import Entry, FileProblem, ServicesFile
from reconciler.local.services_file.parser import read

__all__ = ["Entry", "FileProblem", "ServicesFile", "read", "read_bounded"]
