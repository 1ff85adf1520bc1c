"""The `rankone` command: the work of the packages below, in the order in which it is done."""

from importlib.metadata import version as _version

__version__ = _version("rankone")
