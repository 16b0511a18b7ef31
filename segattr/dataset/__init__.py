"""Files of traces in, files of scored traces out."""

from segattr.dataset.json_text import BadLine
from segattr.dataset.jsonl import ScoredWriter, read_scored
from segattr.dataset.record import SchemaError, ScoredTrace
from segattr.dataset.runner import Kind, Outcome, score_dataset, score_trace, scored_trace
from segattr.dataset.segment import ScoredSegment
from segattr.dataset.sources import Place
from segattr.dataset.student import Fit, Student, StudentTrace, student_row
from segattr.dataset.traces import read_traces

__all__ = [
    "Place",
    "BadLine",
    "read_traces",
    "ScoredTrace",
    "ScoredSegment",
    "SchemaError",
    "ScoredWriter",
    "read_scored",
    "Kind",
    "Outcome",
    "score_trace",
    "scored_trace",
    "score_dataset",
    "Student",
    "StudentTrace",
    "Fit",
    "student_row",
]
