"""Parquet and Arrow files to records, a few rows at a time.

What JSON has no word for becomes text (times, decimals) or is refused by the column's name. A null
is a key that the record does not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROWS = 64  # traces of 100 KB are not rare
MAGIC = {b"PAR1": "Parquet", b"ARROW1": "an Arrow file", b"\xff\xff\xff\xff": "an Arrow stream"}

Share = Callable[[int], float]


def read_table(path: str, kind: str) -> tuple[Iterator[tuple[int, dict[str, Any]]], Share]:
    """Read the rows of a table.

    Args:
        path: The file.
        kind: One of `MAGIC`.

    Returns:
        The rows, numbered from 1; and what share of the file has been read with a row.

    Raises:
        ImportError: If pyarrow is not installed.
        ValueError: If the table is damaged, or a column holds what JSON cannot.
    """
    import_pyarrow()
    readers = {"Parquet": _parquet, "an Arrow file": _arrow_file}
    schema, batches, share = readers.get(kind, _arrow_stream)(path)
    return _rows(batches, schema, _json_schema(schema)), share


def import_pyarrow() -> Any:
    """Return pyarrow.

    Raises:
        ImportError: If it is not installed; with the remedy.
    """
    try:
        import pyarrow
    except ImportError:
        raise ImportError(
            "Parquet, Arrow and zstd files need pyarrow, which is not installed. Run: pip install "
            "pyarrow"
        ) from None
    return pyarrow


def saved_files(folder: Path) -> list[str]:
    """Return the Arrow files of a folder that ``save_to_disk`` of ``datasets`` wrote, in order.

    Raises:
        ValueError: If it is another folder, or holds several splits.
    """
    if (listed := folder / "dataset_dict.json").is_file():
        splits = json.loads(listed.read_text(encoding="utf-8"))["splits"]
        if len(splits) != 1:
            named = ", ".join(str(folder / split) for split in splits)
            raise ValueError(f"{folder} must hold one split, got {len(splits)}. Name one: {named}.")
        folder /= splits[0]
    if not (state := folder / "state.json").is_file():
        raise ValueError(
            f"{folder} must be a file, or a folder that save_to_disk wrote, got another folder. "
            f"Name its files, such as '{folder}/*.jsonl'."
        )
    facts = json.loads(state.read_text(encoding="utf-8"))
    if facts.get("_indices_data_files"):
        raise ValueError(
            f"{folder} must be a data set without indices, got one of an old version of datasets. "
            "Load it and save it anew."
        )
    return [str(folder / file["filename"]) for file in facts["_data_files"]]


def _parquet(path: str) -> tuple[Any, Iterator[Any], Share]:
    import pyarrow.parquet

    # Without these two, all of a row group is in memory at once, which may be all of the file.
    file = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
    rows = file.metadata.num_rows

    def batches() -> Iterator[Any]:
        with file:
            yield from file.iter_batches(batch_size=ROWS)

    return file.schema_arrow, batches(), lambda row: row / rows


def _arrow_stream(path: str) -> tuple[Any, Iterator[Any], Share]:
    import pyarrow

    source = pyarrow.OSFile(path)
    size = max(1, source.size())
    reader = pyarrow.ipc.open_stream(source)
    return reader.schema, iter(reader), lambda row: source.tell() / size


def _arrow_file(path: str) -> tuple[Any, Iterator[Any], Share]:
    import pyarrow

    reader = pyarrow.ipc.open_file(pyarrow.OSFile(path))
    count, at = reader.num_record_batches, 0

    def batches() -> Iterator[Any]:
        nonlocal at
        for at in range(1, count + 1):
            yield reader.get_batch(at - 1)

    return reader.schema, batches(), lambda row: at / count


def _rows(batches: Iterable[Any], schema: Any, target: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow

    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            rows = pyarrow.Table.from_batches([batch.slice(start, ROWS)])
            for row in (rows if target == schema else rows.cast(target)).to_pylist():
                number += 1
                yield number, _without_nulls(row)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def _json_schema(schema: Any) -> Any:
    """The columns in types that become plain JSON values."""
    import pyarrow

    if repeated := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ValueError(f"columns must have names of their own, got {repeated[0]!r} twice.")
    fields = [field.with_type(_json_type(field.type, field.name)) for field in schema]
    return pyarrow.schema(fields, metadata=schema.metadata)


def _json_type(kind: Any, name: str) -> Any:
    import pyarrow
    from pyarrow import types

    if isinstance(kind, pyarrow.BaseExtensionType):
        return _json_type(kind.storage_type, name)
    if types.is_dictionary(kind):
        return _json_type(kind.value_type, name)
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_json_type(field.type, name)) for field in kind])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        field = kind.value_field
        return pyarrow.list_(field.with_type(_json_type(field.type, name)))
    if types.is_float16(kind):
        return pyarrow.float32()
    if any(is_kind(kind) for is_kind in _as_text(types)):
        return pyarrow.string()
    if any(is_kind(kind) for is_kind in _as_it_is(types)):
        return kind
    raise ValueError(
        f"column {name!r} must hold text, numbers, or lists or objects of them, got {kind}. Cast "
        "it to text, or drop it."
    )


def _as_text(types: Any) -> list[Callable[[Any], bool]]:
    return [types.is_decimal, types.is_timestamp, types.is_date, types.is_time]


def _as_it_is(types: Any) -> list[Callable[[Any], bool]]:
    texts = [types.is_string, types.is_large_string, types.is_string_view]
    return [*texts, types.is_integer, types.is_floating, types.is_boolean, types.is_null]
