"""What an export may write, replace and remove: its own files and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import read_parquet

from segattr.export import export


def test_an_export_is_replaced_only_when_asked(scored_traces, rows, tmp_path):
    out = tmp_path / "out"
    export(scored_traces, "trl", out)
    with pytest.raises(FileExistsError, match=r"an earlier export\. Pass overwrite=True"):
        export(scored_traces, "verl", out)
    with pytest.raises(ValueError, match="got none"):  # a failing export leaves the old one
        export([], "verl", out, overwrite=True)
    assert len(read_parquet(out / "data.parquet")) == len(rows)
    (out / "notes.txt").write_text("mine")
    export(scored_traces[:1], "llama-factory", out, overwrite=True)
    names = ["README.md", "data", "export.json", "notes.txt"]  # theirs is gone, mine is not
    assert sorted(path.name for path in out.iterdir()) == names
    export(scored_traces[:1], "verl", out, overwrite=True)
    assert len(read_parquet(out / "data.parquet")) == 1
    assert not (out / "data").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no scraps beside it
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("...")
    with pytest.raises(FileExistsError, match="which holds something else"):
        export(scored_traces, "trl", tmp_path / "mine", overwrite=True)


def test_the_folder_one_stands_in(scored_traces, tmp_path, monkeypatch):
    """An empty one may be filled, whatever it is called."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(scored_traces[:1], "trl", ".")
    assert Path("data.parquet").is_file()


def test_a_file_in_the_way_is_no_loss(scored_traces, rows, tmp_path):
    out = tmp_path / "out"
    export(scored_traces, "trl", out)
    (out / "data").mkdir()
    (out / "data/mine").write_text("x")
    with pytest.raises(FileExistsError, match=r"which no export made\. Move it away"):
        export(scored_traces, "llama-factory", out, overwrite=True)
    assert len(read_parquet(out / "data.parquet")) == len(rows)
    assert (out / "data/mine").is_file()


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"files": ["../mine.tex"]}'])
def test_an_export_json_of_someone_else_is_no_export(scored_traces, tmp_path, text):
    (tmp_path / "mine.tex").write_text("...")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/export.json").write_text(text)
    with pytest.raises(FileExistsError, match="which holds something else"):
        export(scored_traces, "trl", tmp_path / "out", overwrite=True)
    assert (tmp_path / "mine.tex").is_file()


@pytest.mark.parametrize("name", ["..", ".", "", "../precious", "thesis.tex", "folder", "link", 7])
def test_an_export_json_is_believed_about_nothing_but_exports(scored_traces, tmp_path, name):
    """Shared or damaged, it may name anything; with overwrite=True that would be deleted."""
    out = tmp_path / "project/out"
    export(scored_traces, "trl", out)
    (tmp_path / "project/precious").write_text("keep")
    (out / "thesis.tex").write_text("keep")
    (out / "folder").mkdir()
    (out / "folder/notes").write_text("keep")
    (out / "link").symlink_to(tmp_path / "project/precious")
    facts = json.loads((out / "export.json").read_text())
    (out / "export.json").write_text(json.dumps({**facts, "files": [*facts["files"], name]}))
    export(scored_traces[:1], "trl", out, overwrite=True)
    assert len(read_parquet(out / "data.parquet")) == 1
    for path in ("project/precious", "project/out/thesis.tex", "project/out/folder/notes"):
        assert (tmp_path / path).read_text() == "keep"
    assert (out / "link").is_symlink()


@pytest.mark.parametrize("what", ["link to a folder", "link to a file", "folder with more in it"])
def test_what_only_has_the_name_of_an_export_stays(scored_traces, tmp_path, what):
    out, mine = tmp_path / "out", tmp_path / "mine"
    to, name = ("trl", "data.parquet") if what == "link to a file" else ("llama-factory", "data")
    export(scored_traces, to, out)
    if what == "folder with more in it":
        (out / "data/train/mine").write_text("keep")
    else:
        (out / name).rename(mine)
        (out / name).symlink_to(mine)
    with pytest.raises(FileExistsError, match=r"which no export made\. Move it away"):
        export(scored_traces[:1], "llama-factory" if name == "data" else "trl", out, overwrite=True)
    assert (out / name).exists()
    assert (out / "export.json").is_file()
