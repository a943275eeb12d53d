"""The loss and the metrics of an epoch."""

import pytest
import torch
from text_runs import SMALL

from striate.data.text.batches import pad_sequences
from striate.data.text.dataset import Seq2SeqDataset
from striate.data.text.tokens import Tokenizer
from striate.inference.translator import load_translator
from striate.metrics.text import has_sacrebleu
from striate.tasks.seq2seq.metrics import (
    NextTokenLoss,
    Seq2SeqMetrics,
    next_token_metrics,
    translate_together,
    translation_metrics,
)
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
    assert found == {"val_error": 1 / 6, "val_exact": 0.5, "val_bleu": None}  # one wrong of six characters


def test_bleu_needs_words():
    words = Tokenizer("words", tuple("abcde"))
    found = translation_metrics(["a b c d e"], [["a b c d e"]], words)
    assert found["val_bleu"] == (pytest.approx(1.0) if has_sacrebleu() else None)


def row(error, loss):
    return Seq2SeqMetrics(3, 40, 1e-3, 1.5, loss, 0.5, error, 0.25, None, 2.0, 1_000.0)


def test_the_best_epoch_has_the_lowest_error_then_the_lowest_loss():
    ordered = [row(0.2, 1.0), row(0.2, 1.5), row(0.3, 0.5)]
    assert sorted(ordered, key=lambda r: r.monitored, reverse=True) == ordered


def test_an_epoch_in_one_line():
    metrics, speed = row(0.2, 1.0).log_line
    assert metrics == "loss 1.5000  val loss 1.0000  error 0.2000  exact 0.2500"
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
