"""The loss and the metrics of an epoch."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from text_runs import SMALL

from striate.data.text.batches import pad_sequences
from striate.data.text.dataset import Seq2SeqDataset
from striate.data.text.tokens import Tokenizer
from striate.errors import UsageError
from striate.inference.translator import load_translator
from striate.metrics.text import has_sacrebleu
from striate.tasks.seq2seq import metrics as seq2seq_metrics
from striate.tasks.seq2seq.config import MONITORS
from striate.tasks.seq2seq.metrics import (
    NextTokenLoss,
    Seq2SeqMetrics,
    choose_monitor,
    next_token_metrics,
    translate_together,
    translation_metrics,
)
from striate.training import ema
from striate.training.distributed import SINGLE

CPU = torch.device("cpu")


def likelihood(translator, pairs):
    """Loss and accuracy of the next token, one pair at a time, without batches."""
    total = tokens = correct = 0
    for source, references in zip(pairs.sources, pairs.references, strict=True):
        ids = translator.target.encode_target(references[0])
        scores = translator.network(
            pad_sequences([translator.source.encode_source(source)]), torch.tensor([ids[:-1]])
        )[0]
        wanted = torch.tensor(ids[1:])
        total -= float(scores.double().log_softmax(dim=1)[torch.arange(len(wanted)), wanted].sum().detach())
        correct += int((scores.argmax(dim=1) == wanted).sum())
        tokens += len(wanted)
    return total / tokens, correct / tokens


def test_validation_loss_is_the_likelihood_of_the_references(text_run):
    translator = load_translator(text_run.last, "cpu")
    loss, accuracy = likelihood(translator, text_run.task.data.splits["val"])
    assert text_run.epochs[-1].val_loss == pytest.approx(loss, rel=1e-5)
    assert text_run.epochs[-1].val_accuracy == pytest.approx(accuracy)


class Second:
    """The second of two processes, alone."""

    rank, size = 1, 2

    def all_reduce(self, values):
        self.sums = values.clone()


def test_each_process_evaluates_some_of_the_batches(text_run):
    translator = load_translator(text_run.best, "cpu")
    examples = Seq2SeqDataset(text_run.task.data.splits["val"], translator.source, translator.target)
    whole = next_token_metrics(translator.network, examples, SMALL["batch"] // 4, CPU)
    first, second = Second(), Second()
    first.rank = 0
    for process in (first, second):
        next_token_metrics(translator.network, examples, SMALL["batch"] // 4, CPU, process)
    loss, correct, count = (first.sums + second.sums).tolist()
    assert count == examples.lengths[:, 1].sum()
    assert 0 < second.sums[2] < count
    assert whole["val_loss"] == pytest.approx(loss / count, rel=1e-12)
    assert whole["val_accuracy"] == correct / count


def test_translations_come_back_in_order(text_run):
    translator, pairs = load_translator(text_run.best, "cpu"), text_run.task.data.splits["val"]
    expected = [result.text for result in translator.translate(pairs.sources).results]
    assert translate_together(translator, pairs, SINGLE) == expected

    class First(Second):
        rank = 0

        def all_gather_object(self, mine):
            rest = [result.text for result in translator.translate(pairs.sources[1::2]).results]
            return [mine, rest]

    assert translate_together(translator, pairs, First()) == expected


def test_metrics_of_translations_by_hand():
    target = Tokenizer("characters", tuple("abcd"))
    found = translation_metrics(["ab", "abcd"], [["ab"], ["abdd", "aaaa"]], target)
    # One wrong of six characters; one answer is right, and the other one to three quarters.
    assert found == {"val_error": 1 / 6, "val_similarity": 0.875, "val_exact": 0.5, "val_bleu": None}


def test_bleu_needs_words():
    words = Tokenizer("words", tuple("abcde"))
    found = translation_metrics(["a b c d e"], [["a b c d e"]], words)
    assert found["val_bleu"] == (pytest.approx(1.0) if has_sacrebleu() else None)


def row(error, loss, bleu=None):
    return Seq2SeqMetrics(3, 40, 1e-3, 1.5, loss, 0.5, error, 0.25, bleu, 2.0, 1_000.0, 1 - error)


@pytest.mark.parametrize("monitor", ["error", "similarity"])
def test_the_best_epoch_by_its_answers_then_by_the_lowest_loss(monitor):
    ordered = [row(0.2, 1.0), row(0.2, 1.5), row(0.3, 0.5)]
    assert sorted(ordered, key=lambda r: r.monitored(monitor), reverse=True) == ordered


def test_every_metric_selects_by_a_column():
    assert tuple(Seq2SeqMetrics.MONITORS) == MONITORS
    first, second = row(0.3, 2.0, bleu=0.4), row(0.2, 1.0, bleu=0.3)
    better = {monitor: first.monitored(monitor) > second.monitored(monitor) for monitor in MONITORS}
    assert {monitor for monitor in better if better[monitor]} == {"bleu"}


def test_an_answer_that_never_ends_does_not_decide():
    """Nine right answers and an endless one are better than ten half right ones, except by the error rate."""
    target, references = Tokenizer("characters", tuple("ab")), [["ab"]] * 10
    endless = translation_metrics(["ab"] * 9 + ["ab" * 20], references, target)
    half = translation_metrics(["aa"] * 10, references, target)
    assert endless["val_error"] > half["val_error"]
    assert endless["val_similarity"] == pytest.approx(0.9 + 2 / 40 / 10)
    assert half["val_similarity"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("characters", "similarity"),
        ("words", "similarity"),
        ("bytes", "similarity"),
        ("sentencepiece", "bleu"),
    ],
)
def test_the_default_fits_the_target(kind, expected, monkeypatch):
    target = SimpleNamespace(kind=kind)
    monkeypatch.setattr(seq2seq_metrics, "has_sacrebleu", lambda: True)
    assert choose_monitor(None, target) == expected
    assert choose_monitor("loss", target) == "loss"
    monkeypatch.setattr(seq2seq_metrics, "has_sacrebleu", lambda: False)
    assert choose_monitor(None, target) == "similarity"
    with pytest.raises(UsageError, match="--monitor bleu"):
        choose_monitor("bleu", target)


def test_averaged_weights_are_kept_for_a_reason():
    best, other = (dataclasses.replace(row(0.2, 1.0), val_similarity=s, epoch=8) for s in (0.75, 0.7))
    assert best.log_line[0].endswith("exact 0.2500  similarity 0.7500")
    assert ema.verdict(other, best, "similarity", kept=False) == "worse than the best epoch"
    assert ema.verdict(best, other, "similarity", kept=True) == "kept as the best"
    assert ema.verdict(other, best, "similarity", kept=True) == (
        "kept as the best: the similarity of 0.7000 is within one standard error of that of epoch 8, 0.7500"
    )


def test_an_epoch_in_one_line():
    metrics, speed = row(0.2, 1.0).log_line
    assert metrics == "loss 1.5000  val loss 1.0000  error 0.2000  exact 0.2500  similarity 0.8000"
    assert speed == "1,000 tokens/s"


def test_the_training_loss_is_smoothed_cross_entropy(text_run):
    """Szegedy et al. 2016, section 7: a share of each label is spread over all tokens."""
    translator = load_translator(text_run.best, "cpu")  # in evaluation mode: no dropout
    examples = Seq2SeqDataset(text_run.task.data.splits["val"], translator.source, translator.target)
    batch = examples.batch(torch.arange(5).numpy(), CPU)
    module = NextTokenLoss(translator.network, 0.1)
    found = module(batch.source, batch.decoder_input, batch.target, batch.widths)
    logs = translator.network(batch.source, batch.decoder_input).double().log_softmax(dim=2)
    real = batch.target != 0
    target = torch.full_like(logs, 0.1 / logs.shape[2])
    target.scatter_add_(2, batch.target[..., None], torch.full_like(logs[..., :1], 0.9))
    expected = -(target * logs).sum(dim=2)[real].mean()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
