"""torchtune's own data code on what we export for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml

from segattr.export import Variant, export

pytest.importorskip("torchtune", reason="needs torchtune: make test-trainers")


@pytest.fixture
def build(scored_traces, tmp_path, monkeypatch):
    """The data set of the YAML in the export's README, as a recipe builds it."""
    from omegaconf import OmegaConf
    from torchtune import config

    export(scored_traces, "torchtune", tmp_path / "export")
    monkeypatch.syspath_prepend(str(tmp_path / "export"))
    guide = (tmp_path / "export/README.md").read_text()
    settings = yaml.safe_load(guide.partition("```yaml\n")[2].partition("```")[0])

    def build(**changes):
        length = changes.pop("max_seq_len", settings["tokenizer"]["max_seq_len"])
        tokenizer = SimpleNamespace(max_seq_len=length, pad_id=0)
        described = OmegaConf.create({**settings["dataset"], **changes})
        return config.instantiate(described, tokenizer)

    return build


def test_torchtune_trains_on_our_mask(scored_traces, build):
    from torchtune.data import padded_collate_sft

    rows = [Variant().row(record) for record in scored_traces]
    batch = padded_collate_sft(list(build()), padding_idx=0, ignore_idx=-100)
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        assert batch["tokens"][number, :length].tolist() == row["input_ids"]
        assert batch["labels"][number, :length].tolist() == row["labels"]
        assert (batch["labels"][number, length:] == -100).all()


def test_packed_rows_keep_their_mask(scored_traces, build):
    rows = [Variant().row(record) for record in scored_traces]
    packs = list(build(packed=True, max_seq_len=2048))
    labels = [label for pack in packs for label in pack["labels"].tolist() if label != -100]
    assert labels == [label for row in rows for label in row["labels"] if label != -100]


def test_long_rows_are_refused(build):
    with pytest.raises(ValueError, match=r"max_seq_len must be at least \d+"):
        list(build(max_seq_len=9))
