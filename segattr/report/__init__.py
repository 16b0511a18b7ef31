"""Scored traces, to look at."""

from segattr.report.terminal import print_trace

__all__ = ["print_trace"]
