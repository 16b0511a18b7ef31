"""Files of traces in, files of scored traces out."""

from segattr.dataset.jsonl import BadLine, ScoredWriter, read_scored, read_traces
from segattr.dataset.runner import score_dataset, score_trace

__all__ = [
    "BadLine",
    "ScoredWriter",
    "read_scored",
    "read_traces",
    "score_dataset",
    "score_trace",
]
