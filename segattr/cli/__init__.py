"""The ``segattr`` command."""

from segattr.cli.main import main

__all__ = ["main"]
