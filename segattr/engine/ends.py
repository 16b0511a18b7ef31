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
        input_ids: The tokens, int64 ``[T]``; the last one predicts the last answer token.
        inputs: Their embeddings, ``[T, D]``.
        baseline: Their starting points, ``[T, D]``.
        target_ids: The answer, int64 ``[A]``; the last ``A`` rows predict it.
    """

    input_ids: Tensor
    inputs: Tensor
    baseline: Tensor
    target_ids: Tensor

    @classmethod
    def of(
        cls, input_ids: Tensor, inputs: Tensor, baseline: Tensor, target: tuple[int, int]
    ) -> PathEnds:
        """Cut off what follows the row that predicts the last answer token.

        Args:
            input_ids: The whole sequence.
            inputs: Its embeddings.
            baseline: Their starting points.
            target: The answer's tokens ``(start, stop)``.
        """
        rows = slice(target[1] - 1)
        # Ids made in inference mode cannot be saved for a backward pass; copies of them can.
        ids = input_ids.clone()
        return cls(ids[rows], inputs[rows], baseline[rows], ids[slice(*target)])
