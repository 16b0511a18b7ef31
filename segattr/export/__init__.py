"""Scored traces to the files of other trainers, each with a README that says how to use them."""

from segattr.export.exported import Exported
from segattr.export.formats import TRAINERS
from segattr.export.selection import Variant
from segattr.export.writing import export

__all__ = ["TRAINERS", "Variant", "Exported", "export"]
