"""A reasoning trace as text (`Trace`) and as token ids with half-open spans (`EncodedTrace`)."""

from segattr.trace.encoded import EncodedTrace, TraceTooLongError, check_length
from segattr.trace.trace import Span, Trace

__all__ = ["EncodedTrace", "Span", "Trace", "TraceTooLongError", "check_length"]
