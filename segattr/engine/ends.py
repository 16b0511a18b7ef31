"""Where one trace's path begins and stops, as far as its answer depends on it.

Axes: ``T`` tokens, ``D`` hidden size, ``A`` answer tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class PathEnds:
    """Both ends of a path, without the rows that cannot influence the answer.

    Args:
        inputs: Embeddings of the tokens, ``[T, D]``; the last row is the one that predicts the last
            answer token.
        baseline: Their starting points, ``[T, D]``.
        target_ids: The answer, int64 ``[A]``; the last ``A`` rows predict it.
    """

    inputs: Tensor
    baseline: Tensor
    target_ids: Tensor

    @classmethod
    def of(
        cls, inputs: Tensor, baseline: Tensor, target_ids: Tensor, target_start: int
    ) -> PathEnds:
        """Cut off what follows the row that predicts the last answer token.

        Args:
            inputs: Embeddings of the whole sequence.
            baseline: Their starting points.
            target_ids: The answer.
            target_start: Position of its first token.
        """
        rows = target_start + len(target_ids) - 1
        return cls(inputs[:rows], baseline[:rows], target_ids)
