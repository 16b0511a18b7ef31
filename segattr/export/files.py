"""Rows on disk, one by one: Parquet, JSONL, and the folders of ``datasets.save_to_disk``."""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

ROWS_AT_ONCE = 128  # how many rows are in memory, and in one row group of the file
# As datasets itself stores what a tokenizer returns: only data sets of equal types can be merged.
TYPES = {"input_ids": "int32", "attention_mask": "int8"}

Put = Callable[[Mapping[str, Any]], None]
Opener = Callable[[Path, str], AbstractContextManager[Put]]


@contextmanager
def open_jsonl(folder: Path, name: str) -> Iterator[Put]:
    """Yield what writes a row as the next line of ``name.jsonl``."""
    with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:

        def put(row: Mapping[str, Any]) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield put


@contextmanager
def open_parquet(folder: Path, name: str) -> Iterator[Put]:
    """Yield what writes a row of lists to ``name.parquet``; without a row there is no file.

    Columns are of `TYPES`, else float32 where the first row has a float, else int64.

    Raises:
        ImportError: If pyarrow is not installed.
    """
    file = _Parquet(folder / f"{name}.parquet")
    try:
        yield file.put
        file.flush()
    finally:
        file.close()


@contextmanager
def open_dataset_dict(folder: Path, name: str) -> Iterator[Put]:
    """Yield what writes a row to the ``train`` split of a ``datasets.DatasetDict``.

    Raises:
        ImportError: If datasets is not installed.
    """
    datasets = _import("datasets")
    with tempfile.TemporaryDirectory() as cache:
        with open_parquet(Path(cache), "train") as put:
            yield put
        parquet = Path(cache) / "train.parquet"
        if parquet.exists():
            train = datasets.Dataset.from_parquet(str(parquet), cache_dir=cache)
            datasets.DatasetDict(train=train).save_to_disk(str(folder / name))


def is_ours(folder: Path) -> bool:
    """Whether a folder holds what `open_dataset_dict` writes (and datasets caches), no more."""
    train = folder / "train"
    if folder.is_symlink() or train.is_symlink() or not train.is_dir():
        return False
    names = {path.name for path in folder.iterdir()} | {path.name for path in train.iterdir()}
    arrows = {name for name in names if re.fullmatch(r"(data|cache)-.*\.arrow", name)}
    return names - arrows == {"dataset_dict.json", "train", "dataset_info.json", "state.json"}


class _Parquet:
    """A Parquet file whose columns are those of its first row."""

    def __init__(self, path: Path) -> None:
        self.pyarrow, self.parquet = _import("pyarrow"), _import("pyarrow.parquet")
        self.path = path
        self.rows: list[Mapping[str, list]] = []
        self.writer: Any = None

    def put(self, row: Mapping[str, list]) -> None:
        self.rows.append(row)
        if len(self.rows) == ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write the rows in memory, as one row group."""
        if not self.rows:
            return
        if self.writer is None:
            self.writer = self.parquet.ParquetWriter(self.path, self._schema(self.rows[0]))
        self.writer.write_table(self.pyarrow.Table.from_pylist(self.rows, self.writer.schema))
        self.rows = []

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _schema(self, first: Mapping[str, list]) -> Any:
        kinds = {
            name: TYPES.get(name, "float32" if _is_float(values) else "int64")
            for name, values in first.items()
        }
        return self.pyarrow.schema(
            {name: self.pyarrow.list_(self.pyarrow.type_for_alias(k)) for name, k in kinds.items()}
        )


def _is_float(values: list) -> bool:
    return any(isinstance(value, float) for value in values)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ImportError(
            f"this format needs {package}, which is not installed. Run: pip install {package}"
        ) from None
