"""Records to fields: what a `Trace` is made of, read from one JSON object.

Imports nothing outside the standard library: the command's help lists `FIELDS` before torch is
loaded.
"""

from __future__ import annotations

from segattr.fields.layouts import LAYOUTS as LAYOUTS
from segattr.fields.names import FIELDS as FIELDS
from segattr.fields.questions import texts_in as texts_in
from segattr.fields.reading import Reading as Reading
from segattr.fields.reading import trace_fields as trace_fields
from segattr.fields.thinking import MARKS as MARKS
from segattr.fields.thinking import Mark as Mark
