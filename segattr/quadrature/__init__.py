"""Integrals over [0, 1] with error control; knows nothing of models."""

from segattr.quadrature.integral import Integral, integrate

__all__ = ["Integral", "integrate"]
