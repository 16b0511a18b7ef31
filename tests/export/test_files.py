"""What is said when a format's library is missing."""

from __future__ import annotations

import sys

import pytest

from segattr.export.files import write_dataset_dict, write_parquet


@pytest.mark.parametrize(
    ("write", "package"), [(write_parquet, "pyarrow"), (write_dataset_dict, "datasets")]
)
def test_a_missing_library_is_called_by_its_own_name(write, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"needs {package},.* Run: pip install {package}$"):
        write([], tmp_path / "rows")
