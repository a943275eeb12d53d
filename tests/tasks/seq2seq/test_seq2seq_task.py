"""Sequence to sequence as the engine sees it: its runs, its gradients, its learning rates."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from text_runs import SMALL, Messages, config, outcome, train

from striate import api, bundle
from striate.errors import DataError, UsageError
from striate.inference.translator import load_translator
from striate.tasks.seq2seq.config import FEW_PAIRS, Seq2SeqConfig
from striate.tasks.seq2seq.metrics import Seq2SeqMetrics
from striate.tasks.seq2seq.samples import read_samples
from striate.tasks.seq2seq.task import MAX_TRANSLATED, Seq2Seq
from striate.training import ema
from striate.training.checkpointer import Checkpointer
from striate.training.distributed import SINGLE
from striate.training.loop import Training, forward_backward
from striate.training.preparation import initial_state
from striate.training.profile import OFF
from striate.training.task import Context

CPU = torch.device("cpu")


def task_for(data, tmp_path, **options):
    """A prepared task, without a run folder."""
    given = config(data, tmp_path, **options)
    with given.open_data() as pairs:
        task = Seq2Seq(given, pairs, Context(CPU, SINGLE, Messages(), OFF))
        task.setup = task.prepare(None)
    return task


def test_a_run_reports_what_it_chose(text_run):
    infos = "\n".join(text_run.config.progress.infos)
    assert "tokenizers: characters (8 ids) to characters (8 ids)" in infos
    assert "3 epochs, 12 steps of 400 tokens" in infos
    assert "effective peak learning rate 0.003" in infos
    assert "pairs: 107 train, 14 val, 14 test" in infos
    assert text_run.best.exists()
    assert ema.kept_epochs(text_run.folder) == []
    assert len(read_samples(text_run.folder)) == 3 * SMALL["epochs"]


class GoneError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [2, 10])
def test_resumed_after_a_step(reversed_words, text_run, tmp_path, monkeypatch, step):
    """Before the first checkpoint, and in a later epoch."""
    after = Checkpointer.after_step

    def after_step(checkpointer):
        after(checkpointer)
        if checkpointer._state.step == step:
            raise GoneError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "after_step", after_step)
        with pytest.raises(GoneError):
            train(reversed_words, tmp_path)
    torch.manual_seed(step + 99)  # whatever was drawn before
    api.resume_training(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(text_run.folder)


def test_resumed_while_averaging(reversed_words, text_run, tmp_path, monkeypatch):
    def gone(*_):
        raise GoneError

    with monkeypatch.context() as patch:
        patch.setattr(ema, "average_checkpoints", gone)
        with pytest.raises(GoneError):
            train(reversed_words, tmp_path)
    api.resume_training(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(text_run.folder)


def test_changed_pairs_and_options_are_refused(reversed_words, tmp_path):
    data = tmp_path / "reversed.tsv"
    data.write_text(reversed_words.read_text("utf-8"), "utf-8")
    train(data, tmp_path, epochs=1, average=0)
    data.write_text(reversed_words.read_text("utf-8") + "abcdabcd\tx\n", "utf-8")
    with pytest.raises(DataError, match=r"its data have changed: .*train had 107 pairs and has 10"):
        api.resume_training(tmp_path / "run")
    with pytest.raises(UsageError, match=r"lr was 0\.003 and is 0\.1"):
        api.resume_training(tmp_path / "run", lr=0.1)


def test_averaged_weights_are_the_mean(reversed_words, tmp_path, monkeypatch):
    kept, found, average = {}, {}, ema.average_checkpoints

    def look(paths):
        kept.update({path.stem: load_file(path) for path in paths})
        found["mean"] = average(paths)
        return found["mean"]

    monkeypatch.setattr(ema, "average_checkpoints", look)
    run = train(reversed_words, tmp_path, average=2)
    assert sorted(kept) == ["000002", "000003"]
    last = bundle.read(run.last)[1]
    for name, value in last.items():
        assert torch.equal(value, kept["000003"][name])
        assert torch.allclose(found["mean"][name], (kept["000002"][name] + value) / 2, atol=1e-6)


def gradient(task, samples, micro_batches, monkeypatch=None, slices=None):
    """The gradient of a step on these samples."""
    state = initial_state(task, task.setup, CPU)
    state.micro_batches = micro_batches
    if slices is not None:
        monkeypatch.setattr(SINGLE, "split", lambda counts, parts: slices, raising=False)
    training = Training(
        task, task.setup.config, state, None, task.training_module(state.network), task.context
    )
    [batch] = task.batches(0, [samples])
    state.network.zero_grad()
    sums = forward_backward(training, batch, [len(batch)], [batch.terms])
    return torch.cat([p.grad.flatten() for p in state.network.parameters()]), sums


def test_the_gradients_of_micro_batches_sum_to_that_of_the_batch(reversed_words, tmp_path, monkeypatch):
    """Micro-batches are weighted by their tokens, not by their pairs."""
    task = task_for(reversed_words, tmp_path, dropout=0.0)
    samples = np.argsort(task.train.lengths[:, 1], kind="stable")[:: len(task.train) // 8][:9]
    whole, sums = gradient(task, samples, 1)
    parts, sums_of_parts = gradient(task, samples, 3)
    assert torch.allclose(parts, whole, atol=1e-6)
    assert torch.allclose(sums_of_parts, sums)
    slices = [slice(0, 2), slice(2, 3), slice(3, 9)]
    assert torch.allclose(gradient(task, samples, 3, monkeypatch, slices)[0], whole, atol=1e-6)
    assert whole.abs().max() > 1e-3


def test_accumulated_batches_are_one_batch_with_as_many_tokens(reversed_words, tmp_path):
    one = task_for(reversed_words, tmp_path, batch=400, accumulate=1)
    two = task_for(reversed_words, tmp_path, batch=200, accumulate=2)
    for mine, theirs in zip(one.order(3), two.order(3), strict=True):
        assert np.array_equal(mine, theirs)
    assert initial_state(two, two.setup, CPU).micro_batches == 2


def test_a_step_has_limited_tokens_and_an_epoch_has_every_pair(reversed_words, tmp_path):
    task = task_for(reversed_words, tmp_path)
    order = task.order(0)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(task.train)))
    for samples in order:
        source, target = task.train.lengths[samples].max(axis=0)
        assert len(samples) * (source + target) <= SMALL["batch"]


def test_an_empty_shard_has_no_loss_but_a_gradient(reversed_words, tmp_path):
    """DistributedDataParallel waits for a gradient of every parameter."""
    task = task_for(reversed_words, tmp_path)
    state = initial_state(task, task.setup, CPU)
    [batch] = task.batches(0, [np.zeros(0, np.int64)])
    assert (len(batch), batch.terms) == (0, 0)
    loss = task.loss(task.training_module(state.network), batch, state, 0)
    assert (float(loss.value.detach()), loss.terms) == (0.0, 0)
    torch.autograd.backward(loss.value)
    for name, parameter in state.network.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def schedule(steps, **options):
    """The learning rate schedule, and the warnings about it."""
    task = Seq2Seq(Seq2SeqConfig("x", **options).filled_in(10), None, Context(CPU, SINGLE, Messages(), OFF))
    task.setup = dataclasses.make_dataclass("Setup", ["notes"])([])
    return task.lr_schedule(steps), task.context.progress.warnings


def test_noam_is_the_schedule_of_the_paper():
    """Vaswani et al. 2017, equation 3: d^-0.5 min(s^-0.5, s w^-1.5), s from 1."""
    rates, warnings = schedule(10_000, sched="noam", warmup=400, width=512)
    assert warnings == []
    for step in (1, 17, 400, 401, 9_999):
        expected = 512**-0.5 * min(step**-0.5, step * 400**-1.5)
        assert rates.at(step - 1, 10_000) == pytest.approx(expected)


def test_a_long_warm_up_is_a_warning():
    assert "rises for 800 of 1,000 steps" in schedule(1000, warmup=800, lr=0.5)[1][0]
    assert schedule(1600, warmup=800, lr=0.5)[1] == []
    assert schedule(400, warmup=800, lr=0.5)[0].peak == pytest.approx(0.5 * 400 / 800)  # the rate it reaches


def test_the_warning_about_the_warm_up_is_in_the_report(reversed_words, tmp_path):
    progress = Messages()
    run = train(reversed_words, tmp_path, progress, warmup=11, epochs=3, average=0)
    assert sum("most of the run is warm-up" in note for note in run.notes) == 1
    assert sum("most of the run is warm-up" in line for line in progress.warnings) == 1


def test_weight_decay_leaves_out_embeddings_biases_and_norms(reversed_words, tmp_path):
    task = task_for(reversed_words, tmp_path, positions="learned", weight_decay=0.3)
    network = task.setup.network
    groups = task.parameter_groups(network)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        is_lookup = "embedding" in name or name.endswith(".table")
        assert decay[id(parameter)] == (0.3 if parameter.ndim > 1 and not is_lookup else 0.0), name


def test_evaluation_translates_a_limited_number_of_pairs(reversed_words, tmp_path, monkeypatch):
    assert MAX_TRANSLATED == 500
    monkeypatch.setattr("striate.tasks.seq2seq.task.MAX_TRANSLATED", 5)
    task = task_for(reversed_words, tmp_path)
    sources = task.data.splits["val"].sources
    chosen = task._translated.sources
    assert len(chosen) == 5
    assert (chosen[0], chosen[-1]) == (sources[0], sources[-1])
    assert set(task.evaluate(task.setup.network)) == {
        "val_loss", "val_accuracy", "val_error", "val_similarity", "val_exact", "val_bleu"
    }  # fmt: skip


def test_a_bundle_of_a_run_is_complete(text_run):
    translator = load_translator(text_run.best, "cpu")
    description = translator.description
    assert (description.task, description.architecture) == ("seq2seq", "text_to_text")
    assert description.provenance["training_pairs"] == 107
    assert description.text["longest"] == 7  # six letters and END
    # Averaged weights are those of the last epoch.
    assert description.metrics["epoch"] in (text_run.best_epoch, SMALL["epochs"])


def test_averaged_weights_may_be_worse_by_a_standard_error(reversed_words, tmp_path, monkeypatch):
    """Of the metric on 14 val pairs: the best of many epochs is the best by chance in part."""
    task = task_for(reversed_words, tmp_path)
    val = len(task.data.splits["val"])
    state = initial_state(task, task.setup, CPU)
    metrics = {"val_loss": 1.0, "val_accuracy": 0.5, "val_error": 0.4, "val_exact": 0.2, "val_bleu": None}
    row = Seq2SeqMetrics(1, 10, 0.1, 2.0, **metrics, seconds=1.0, tokens_per_second=1.0, val_similarity=0.75)
    state.record(row)
    error = (0.75 * 0.25 / val) ** 0.5
    assert task.averaging_margin(row) == pytest.approx(error)
    for difference, kept in ((0.9, True), (1.1, False)):
        average = dataclasses.replace(row, val_similarity=0.75 - difference * error)
        assert state.is_better(average, task.averaging_margin(row)) is kept
        assert not state.is_better(average)
    task.config = dataclasses.replace(task.config, monitor="loss")
    assert task.averaging_margin(row) == 0.0
    task.config = dataclasses.replace(task.config, monitor="error")
    assert task.averaging_margin(row) == pytest.approx((0.4 * 0.6 / val) ** 0.5)
    monkeypatch.setattr("striate.tasks.seq2seq.task.MAX_TRANSLATED", val)  # enough to tell epochs apart
    assert task.averaging_margin(row) == 0.0


def test_few_pairs_get_enough_steps(reversed_words, tmp_path):
    """With the preset's own number of epochs, there would be a tenth of them."""
    options = dict.fromkeys(("epochs", "batch", "dropout", "lr"))
    task = task_for(reversed_words, tmp_path, **options)
    steps = len(task.order(0)) * task.setup.config.epochs
    assert (task.config.model, task.config.batch, task.config.epochs) == ("tiny", 300, 400)
    assert steps < FEW_PAIRS["steps"]  # 400 passes are enough for so few pairs
    assert f"400 epochs, {steps:,} steps" in "\n".join(task.introduce())
    task = task_for(reversed_words, tmp_path, **options | {"batch": 60})
    assert 5_000 <= len(task.order(0)) * task.setup.config.epochs < 5_000 + len(task.order(0))
