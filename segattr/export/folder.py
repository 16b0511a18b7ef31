"""The folder of an export: new, or in place of an earlier export, of which nothing else is lost.

It is made under another name and moved when it is whole, so a failure leaves what was there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segattr.export.files import is_ours
from segattr.export.formats import TRAINERS


@contextmanager
def new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder whose files are moved to ``folder`` if the block raises nothing.

    Args:
        folder: An absolute path; its parents are made.
        overwrite: Replace an earlier export.

    Raises:
        FileExistsError: If ``folder`` holds something and is not to be replaced, or is no export,
            or one of its own files has the name of a new one.
    """
    _require_new(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
        partial = Path(made) / folder.name
        partial.mkdir()
        yield partial
        _replace(folder, partial)


def _require_new(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _files_of(folder):
        raise FileExistsError(
            f"out must be a new folder, got {folder}, which holds something else. Choose another."
        )
    if not overwrite:
        raise FileExistsError(
            f"out must be a new folder, got {folder}, an earlier export. Pass overwrite=True to "
            "replace it."
        )


def _replace(folder: Path, partial: Path) -> None:
    """Put the new export in place of an earlier one, whose files alone are removed."""
    folder.mkdir(exist_ok=True)
    earlier = _files_of(folder)
    for path in partial.iterdir():
        if (folder / path.name).exists() and folder / path.name not in earlier:
            raise FileExistsError(
                f"out must have room for {path.name}, got {folder / path.name}, which no export "
                "made. Move it away."
            )
    for old in earlier:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for path in partial.iterdir():
        path.rename(folder / path.name)


def _files_of(folder: Path) -> list[Path]:
    """What an earlier export has written into a folder; nothing for other folders.

    ``export.json`` may come from anywhere, so it is believed only about names that an export can
    write, and never about a link or about a folder that holds something else.
    """
    try:
        names = json.loads((folder / "export.json").read_text(encoding="utf-8"))["files"]
        paths = [folder / name for name in names if name in _writable_names()]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return [path for path in paths if not path.is_symlink() and (path.is_file() or is_ours(path))]


def _writable_names() -> set[str]:
    """Every name that some export gives a file or a folder."""
    kinds = ("parquet", "jsonl")
    data = {f"{name}.{kind}" for name in ("data", "tokens") for kind in kinds}
    hooks = {target.hook for target in TRAINERS.values() if target.hook is not None}
    return {"README.md", "export.json", "data"} | data | hooks
