"""Rows on disk, and what is said when a format's library is missing."""

from __future__ import annotations

import sys

import pytest
from tiny import read_parquet

from segattr.export import export
from segattr.export.files import open_dataset_dict, open_jsonl, open_parquet


def test_many_rows_are_all_written(tmp_path):
    rows = [{"input_ids": [number], "loss_mask": [number / 2]} for number in range(300)]
    with open_parquet(tmp_path, "data") as put:
        for row in rows:
            put(row)
    assert read_parquet(tmp_path / "data.parquet") == rows


def test_columns_have_the_types_that_tokenizers_give(scored_traces, tmp_path):
    """As `datasets` stores them, so that exports can be merged with other data."""
    import pyarrow.parquet

    export(scored_traces, "axolotl", tmp_path / "out")
    schema = pyarrow.parquet.read_schema(tmp_path / "out/data.parquet")
    kinds = {field.name: str(field.type.value_type) for field in schema}
    assert kinds == {"input_ids": "int32", "attention_mask": "int8", "labels": "int64"}


@pytest.mark.parametrize("opener", [open_parquet, open_dataset_dict])
def test_without_a_row_there_is_no_file(opener, tmp_path):
    with opener(tmp_path, "data"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opener", [open_parquet, open_dataset_dict, open_jsonl])
def test_an_error_among_the_rows_comes_through(opener, tmp_path):
    def write() -> None:
        with opener(tmp_path, "data") as put:
            put({"input_ids": [1]})
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        write()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("opener", "package"), [(open_parquet, "pyarrow"), (open_dataset_dict, "datasets")]
)
def test_a_missing_library_is_called_by_its_own_name(opener, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(ImportError, match=f"needs {package},.* Run: pip install {package}$"),
        opener(tmp_path, "rows"),
    ):
        pass
