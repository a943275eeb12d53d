"""samples.csv."""

import csv

from striate.data.text.pairs import Pairs
from striate.tasks.seq2seq.samples import read_samples, write_samples

PAIRS = Pairs(("ab", 'c,"d'), (("ba",), ("x\ny", "z")), ("1", "2"))


def test_samples_are_written_and_shown(tmp_path):
    assert read_samples(tmp_path) == []
    shown = write_samples(tmp_path, 1, PAIRS, ["ba", "zz"])
    assert shown == ["  'ab' -> 'ba', correct", "  'c,\"d' -> 'zz', reference 'x\\ny'"]
    assert read_samples(tmp_path) == [["1", "ab", "ba", "ba"], ["1", 'c,"d', "x\ny", "zz"]]
    with (tmp_path / "samples.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["epoch", "source", "reference", "answer"]


def test_a_resumed_epoch_replaces_its_samples_and_later_ones(tmp_path):
    for epoch in (1, 2, 3):
        write_samples(tmp_path, epoch, PAIRS, [f"epoch {epoch}"])
    write_samples(tmp_path, 2, PAIRS, ["again"])
    assert [(row[0], row[3]) for row in read_samples(tmp_path)] == [("1", "epoch 1"), ("2", "again")]
