"""Parquet and Arrow: every column becomes plain JSON values, or is refused by name."""

from __future__ import annotations

import datetime
import decimal
import json
import sys
from pathlib import Path

import datasets
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from segattr.dataset.tables import MAGIC, import_pyarrow, read_table, saved_files

WRITERS = {
    "Parquet": pyarrow.parquet.write_table,
    "an Arrow file": pyarrow.feather.write_feather,
}


def write_stream(table, path):
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)


WRITERS["an Arrow stream"] = write_stream


def read(table, path: Path, kind: str = "Parquet") -> list:
    WRITERS[kind](table, str(path))
    assert path.read_bytes().startswith(next(magic for magic, k in MAGIC.items() if k == kind))
    rows, share = read_table(str(path), kind)
    found = [(number, row, share(number)) for number, row in rows]
    shares = [share for *_, share in found]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=0.1)
    assert [number for number, *_ in found] == list(range(1, len(found) + 1))
    return [row for _, row, _ in found]


@pytest.mark.parametrize("kind", WRITERS)
def test_nested_rows_come_back_as_they_were(tmp_path, kind):
    rows = [
        {
            "id": n,
            "text": "caf\xe9",
            "messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant"}],
            "scores": [[0.5], [], [n]],
            "ok": n % 2 == 0,
            **({"seldom": "x"} if n % 50 == 0 else {}),
        }
        for n in range(200)
    ]
    found = read(pyarrow.Table.from_pylist(rows, _schema()), tmp_path / "t", kind)
    assert found == rows  # a null is a key that is not there
    assert json.loads(json.dumps(found)) == rows


def _schema():
    message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    columns = {
        "id": pyarrow.int64(),
        "text": pyarrow.large_string(),
        "messages": pyarrow.list_(message),
        "scores": pyarrow.list_(pyarrow.list_(pyarrow.float32())),
        "ok": pyarrow.bool_(),
        "seldom": pyarrow.string(),
        "never": pyarrow.null(),
    }
    return pyarrow.schema(columns.items())


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([datetime.datetime(2026, 1, 2, 3)], pyarrow.timestamp("ns"), "2026-01-02 03:00:00"),
        ([datetime.date(2026, 1, 2)], pyarrow.date32(), "2026-01-02"),
        ([datetime.time(3, 4)], pyarrow.time32("s"), "03:04:00"),
        ([decimal.Decimal("1.50")], pyarrow.decimal128(5, 2), "1.50"),
        (["a"], pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), "a"),
        ([[0.5]], pyarrow.list_(pyarrow.float32(), 1), [0.5]),
        ([{"t": [datetime.date(2026, 1, 2)]}],
         pyarrow.struct([("t", pyarrow.list_(pyarrow.date32()))]), {"t": ["2026-01-02"]}),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_json_has_no_word_for_becomes_text(tmp_path, values, kind, expected):
    ((found, *_),) = (
        row.values()
        for row in read(pyarrow.table({"x": pyarrow.array(values, kind)}), tmp_path / "t")
    )
    assert type(found) is type(expected)
    assert str(found).startswith(str(expected)) if isinstance(found, str) else found == expected


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pyarrow.array([b"q"]), "binary"),
        (pyarrow.array([{"bytes": b"q"}]), "binary"),
        (pyarrow.array([datetime.timedelta(1)]), "duration"),
        (pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int8())), "map"),
    ],
    ids=["binary", "image", "duration", "map"],
)
def test_what_json_cannot_hold_is_refused_by_the_column(tmp_path, column, kind):
    message = f"column 'x' must hold text, numbers, or lists or objects of them, got {kind}"
    with pytest.raises(ValueError, match=message):
        read(pyarrow.table({"x": column}), tmp_path / "t")


def test_columns_of_one_name_are_refused(tmp_path):
    table = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["x", "x"])
    with pytest.raises(ValueError, match="columns must have names of their own, got 'x' twice"):
        read(table, tmp_path / "t")


def test_without_pyarrow_the_error_has_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"need pyarrow, .* Run: pip install pyarrow"):
        import_pyarrow()


@pytest.fixture
def saved(tmp_path):
    """A data set of two files, its rows shuffled, and two dicts of it."""
    data = datasets.Dataset.from_list([{"n": n} for n in range(5)]).select([4, 0, 1])
    data.save_to_disk(tmp_path / "data", num_shards=2)
    datasets.DatasetDict(train=data).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=data, test=data).save_to_disk(tmp_path / "two")
    return tmp_path


def test_folders_of_save_to_disk(saved):
    for folder, count in (("data", 2), ("one", 1), ("two/test", 1)):
        files = saved_files(saved / folder)
        assert len(files) == count
        rows = [row for file in files for _, row in read_table(file, "an Arrow stream")[0]]
        assert rows == [{"n": 4}, {"n": 0}, {"n": 1}]


def test_other_folders_are_refused_with_the_remedy(saved):
    with pytest.raises(ValueError, match=r"must hold one split, got 2. Name one: .*two/train, .*t"):
        saved_files(saved / "two")
    with pytest.raises(ValueError, match=r"got another folder. Name its files, such as '.*/\*.js"):
        saved_files(saved)
    state = saved / "data" / "state.json"
    old = {**json.loads(state.read_text()), "_indices_data_files": [{"filename": "i.arrow"}]}
    state.write_text(json.dumps(old))
    with pytest.raises(ValueError, match="got one of an old version of datasets"):
        saved_files(saved / "data")
