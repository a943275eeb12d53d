"""The check before a run that the network can overfit a few examples."""

import pytest
from text_runs import Messages, outcome, train

from striate.errors import TrainingError
from striate.tasks.seq2seq import sanity_check


def test_targets_that_do_not_follow_from_their_sources_fail(tmp_path, monkeypatch):
    """Equal sources have different targets, so no network can overfit them."""
    table = tmp_path / "coin.tsv"
    table.write_text("".join(f"{'abcdefgh'[i % 8]}\t{i:03}\n" for i in range(200)), "utf-8")
    monkeypatch.setattr(sanity_check, "STEPS", 40)
    with pytest.raises(TrainingError, match="the sanity check failed: after 40 steps"):
        train(table, tmp_path, sanity_check=True)
    assert not (tmp_path / "run").exists()


def test_a_passed_check_changes_nothing(reversed_words, text_run, tmp_path, monkeypatch):
    monkeypatch.setattr(sanity_check, "EXAMPLES", 6)
    progress = Messages()
    run = train(reversed_words, tmp_path, progress, sanity_check=True)
    assert any(line.startswith("sanity check: the network overfits 6 examples") for line in progress.infos)
    assert outcome(run.folder) == outcome(text_run.folder)
