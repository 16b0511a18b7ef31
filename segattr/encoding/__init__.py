"""A trace's text to token ids and spans."""

from segattr.encoding.encode import BRACE, INSTRUCTION, SENTENCE, STUB, encode

__all__ = ["BRACE", "INSTRUCTION", "SENTENCE", "STUB", "encode"]
