"""Rows of tokens on disk: Parquet, and the folders of ``datasets.save_to_disk``."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROWS_AT_ONCE = 128  # how many rows are in memory, and in one row group of the file
# As datasets itself stores what a tokenizer returns: only data sets of equal types can be merged.
TYPES = {"input_ids": "int32", "attention_mask": "int8"}


def write_parquet(rows: Iterable[Mapping[str, list]], path: Path) -> None:
    """Write rows of lists: `TYPES`, else float32 where the first row has a float, else int64.

    Raises:
        ImportError: If pyarrow is not installed.
    """
    pyarrow, parquet = _import("pyarrow"), _import("pyarrow.parquet")
    rows = iter(rows)
    if (first := next(rows, None)) is None:
        return
    kinds = {
        name: TYPES.get(name, "float32" if _is_float(values) else "int64")
        for name, values in first.items()
    }
    schema = pyarrow.schema(
        {name: pyarrow.list_(pyarrow.type_for_alias(kind)) for name, kind in kinds.items()}
    )
    rows = itertools.chain([first], rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(itertools.islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema))


def write_dataset_dict(rows: Iterable[Mapping[str, list]], path: Path) -> None:
    """Write rows as the ``train`` split of a ``datasets.DatasetDict``.

    Raises:
        ImportError: If datasets is not installed.
    """
    datasets = _import("datasets")
    with tempfile.TemporaryDirectory() as cache:
        parquet = Path(cache) / "train.parquet"
        write_parquet(rows, parquet)
        if parquet.exists():
            train = datasets.Dataset.from_parquet(str(parquet), cache_dir=cache)
            datasets.DatasetDict(train=train).save_to_disk(str(path))


def is_ours(folder: Path) -> bool:
    """Whether a folder holds what `write_dataset_dict` writes (and datasets caches), no more."""
    train = folder / "train"
    if folder.is_symlink() or train.is_symlink() or not train.is_dir():
        return False
    names = {path.name for path in folder.iterdir()} | {path.name for path in train.iterdir()}
    arrows = {name for name in names if re.fullmatch(r"(data|cache)-.*\.arrow", name)}
    return names - arrows == {"dataset_dict.json", "train", "dataset_info.json", "state.json"}


def _is_float(values: list) -> bool:
    return any(isinstance(value, float) for value in values)


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ImportError(
            f"this format needs {package}, which is not installed. Run: pip install {package}"
        ) from None
