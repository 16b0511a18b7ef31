"""The picture of the rules: error and agreement against cost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def draw(results: Path, path: Path, wanted: Sequence[str]) -> None:
    """Token error and agreement of the kept segments against evaluations, for a few kinds.

    Args:
        results: A file of results; those that continue it, such as ``quadrature-zero.json``, are
            read too.
        path: The picture to write.
        wanted: Kinds to draw, as far as they were measured; the first three if none was.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    files = sorted(results.parent.glob(f"{results.stem.split('-')[0]}*.json"))
    runs = [run for file in files for run in json.loads(file.read_text())["runs"]]
    measured = dict.fromkeys(run["kind"] for run in runs)
    kinds = [kind for kind in wanted if kind in measured] or list(measured)[:3]
    figure, axes = plt.subplots(2, len(kinds), figsize=(4.2 * len(kinds), 6.4), squeeze=False)
    for kind, (error, agreement) in zip(kinds, axes.T, strict=True):
        curves: dict[str, list[Row]] = defaultdict(list)
        for run in runs:
            if run["kind"] == kind:
                curves[run["rule"]].append(run)
        for rule, points in curves.items():
            evaluations = [point["evaluations"] for point in points]
            errors = [point["median_token_error"] for point in points]
            error.plot(evaluations, errors, label=rule, **style_of(rule))
            agreement.plot(evaluations, [point["kept"] for point in points], **style_of(rule))
        error.set(title=kind, yscale="log")
        agreement.set(xlabel="gradient evaluations")
        error.grid(alpha=0.3)
        agreement.grid(alpha=0.3)
    axes[0, 0].set_ylabel("token error, median")
    axes[1, 0].set_ylabel("kept segments, mean Jaccard")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=5, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def style_of(rule: str) -> Row:
    if rule == "auto":
        return {"color": "black", "marker": "*", "ms": 14, "ls": "", "zorder": 3}
    if rule == "auto, stopped at":
        return {"color": "black", "marker": ".", "zorder": 3}
    dotted = rule in ("calibrated", "quantiles of F")
    return {"marker": ".", "lw": 1.2, "alpha": 0.8, "ls": ":" if dotted else "-"}
