"""Sequence to sequence, as the training engine sees it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import nn

from striate.data.text.batches import TextBatch, bucket_by_length, drop_words
from striate.device import autocast
from striate.inference.text_evaluation import measure_on
from striate.inference.translator import Translator, load_translator
from striate.models.seq2seq import SequenceToSequence
from striate.tasks.seq2seq import inputs
from striate.tasks.seq2seq.metrics import (
    NextTokenLoss,
    Seq2SeqMetrics,
    next_token_metrics,
    translate_together,
    translation_metrics,
)
from striate.tasks.seq2seq.preparation import prepare
from striate.tasks.seq2seq.samples import write_samples
from striate.tasks.seq2seq.sanity_check import require_overfit
from striate.training.loop import norms_in_evaluation
from striate.training.optimizer import parameter_groups
from striate.training.schedule import EvaluationCost, Indices, LRSchedule
from striate.training.task import Loss, Setup, Task

if TYPE_CHECKING:
    from striate.data.text.dataset import Seq2SeqDataset
    from striate.data.text.pairs import Pairs, PairSet
    from striate.tasks.seq2seq.config import Seq2SeqConfig
    from striate.training.state import TrainState

MAX_TRANSLATED = 500  # validation pairs that are translated after an epoch; the loss is of all of them


class Seq2Seq(Task):
    """Sequence to sequence.

    Attributes:
        data: the pairs in their splits.
        train: examples for training.
        val: validation examples, one for each pair.
        translator: with the network that is trained.
        tokenizers: how they were trained, in words; empty in a resumed run.
    """

    unit = "pairs"
    row = Seq2SeqMetrics
    memory_hint = "Use a smaller --batch or --width, or free memory that other programs use"
    dynamic_shapes = True
    adam: ClassVar[Mapping[str, Any]] = {"betas": (0.9, 0.98), "eps": 1e-9}  # Vaswani et al., section 5.3

    config: Seq2SeqConfig
    data: PairSet
    train: Seq2SeqDataset
    val: Seq2SeqDataset
    translator: Translator
    tokenizers: str = ""

    # Before the first step

    def prepare(self, resumed: Mapping[str, Any] | None) -> Setup:
        """Train the tokenizers, tokenize the pairs, and build the network."""
        pairs = len(self.data.splits["train"])
        self.config = self.config.absolute().filled_in(pairs)
        setup = prepare(self, resumed)
        setup.facts["data"] = inputs.digests(self.data)
        self.config = setup.config
        self.config = setup.config = self.config.with_epochs(pairs, len(self.order(0)))
        if resumed is None and self.config.sanity_check:
            require_overfit(self)
        return setup

    def fingerprint(self) -> str:
        """Number and digest of the pairs of each split."""
        return json.dumps(inputs.digests(self.data))

    def changes(self, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """Which splits differ from those of a run that is being resumed."""
        return inputs.changes(folder, facts["setup"].get("data", {}), self.data)

    def write_inputs(self, folder: Path) -> None:
        """Write the table of all image files."""
        inputs.write(folder, self.data)

    def introduce(self) -> list[str]:
        """Numbers of pairs, the tokenizers, the network, and the schedule."""
        config, description = self.config, self.setup.description
        splits = ", ".join(f"{len(pairs):,} {name}" for name, pairs in self.data.splits.items())
        parameters = sum(p.numel() for p in self.setup.network.parameters())
        steps = None if config.budget else (config.epochs or 0) * len(self.order(0))
        length = f"{config.epochs} epochs" if steps is None else f"{config.epochs} epochs, {steps:,} steps"
        if config.budget:
            length = f"budget {config.shown_budget}" + (f" or {length}" if config.epochs else "")
        lr = self.lr_schedule(steps)
        return [
            f"pairs: {splits}",
            *([f"columns: {', '.join(map(str, self.data.columns))}"] if self.data.columns else []),
            *([self.tokenizers] if self.tokenizers else []),
            f"network {config.model}: {description.architecture}, width {config.width}, {config.depth}+"
            f"{config.decoder_depth or config.depth} layers, {config.heads} heads, hidden {config.hidden}, "
            f"dropout {config.dropout:g}, word dropout {config.word_dropout:g}, positions "
            f"{config.positions}; {parameters:,} parameters",
            f"{length} of {config.step_batch:,} tokens, {config.sched}, effective peak learning rate "
            f"{lr.peak:.3g}, warm-up {100 * lr.warmup:.0f} % of the steps, label smoothing "
            f"{config.label_smoothing:g}, on {self.context.device}",
        ]

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Weight decay on matrices, but not on embeddings and learned positions."""
        lookups = {n for n, _ in network.named_parameters() if "embedding" in n or n.endswith(".table")}
        scales = dict.fromkeys((name for name, _ in network.named_parameters()), 1.0)
        groups = parameter_groups(network, self.config.decay, scales, lookups)
        return sorted(groups, key=lambda group: -group["weight_decay"])  # the order in checkpoints

    def lr_schedule(self, steps: int | None) -> LRSchedule:
        """The schedule as configured; `noam` is the paper's equation 3, scaled by the learning rate."""
        config = self.config
        assert config.lr is not None
        assert config.width is not None
        kind = "inverse-sqrt" if config.sched == "noam" else config.sched
        if steps is None:
            return LRSchedule(config.lr, kind, config.warmup, config.milestone_shares, config.gamma)
        warmup = config.warmup if config.warmup >= 1 else max(1.0, round(config.warmup * steps))
        peak = config.lr * (config.width * warmup) ** -0.5 if config.sched == "noam" else config.lr
        if warmup > steps / 2:
            peak *= min(1.0, steps / warmup)  # the rate that is reached
            self._note(
                f"the learning rate rises for {warmup:,.0f} of {steps:,} steps: most of the run is warm-up "
                "(use more --epochs, a smaller --batch, or --warmup 0.1)"
            )
        return LRSchedule(peak, kind, min(1.0, warmup / steps), config.milestone_shares, config.gamma)

    def evaluation_cost(self) -> EvaluationCost:
        """Numbers of tokens: val after an epoch; test, and val for averaged weights, at the end."""
        val = self.data.splits["val"]
        tokens = int(self.val.lengths.sum())
        test = tokens * len(self.data.splits.get("test", val)) // min(MAX_TRANSLATED, len(val))
        return EvaluationCost(tokens, test + (tokens if self.config.average > 1 else 0))

    # In every epoch

    def names_of(self, samples: Indices) -> list[str]:
        """File and line of training examples."""
        return [self.train.names[i] for i in samples.tolist()]

    def order(self, epoch: int) -> list[Indices]:
        """The examples of each step: of similar length, with a limited number of tokens."""
        return bucket_by_length(
            self.train.lengths, self.config.step_batch, seed=self.config.seed, epoch=epoch
        )

    def batches(self, epoch: int, order: Sequence[Indices]) -> Iterator[TextBatch]:
        """Padded batches."""
        for which in order:
            if len(which):
                batch = self.train.batch(which, self.context.device)
                rate, longest = self.config.word_dropout or 0.0, int(self.train.lengths[:, 1].max())
                yield drop_words(batch, rate, longest, seed=self.config.seed, epoch=epoch)
            else:  # an empty shard; `loss` needs some example for its forward pass
                yield self.train.batch(np.zeros(1, np.int64), self.context.device).part(slice(0, 0))

    def training_module(self, network: nn.Module) -> nn.Module:
        """The network with its loss."""
        assert isinstance(network, SequenceToSequence)
        return NextTokenLoss(network, self.config.label_smoothing)

    def loss(self, module: nn.Module, batch: TextBatch, state: TrainState, index: int) -> Loss:
        """Cross-entropy of the next token, given the correct ones before it."""
        if not len(batch) and not self.context.distributed.synchronized:
            return self._no_loss(module, state)
        with self.context.stopwatch.phase("forward"), autocast(self.context.device, self.precision):
            value = module(batch.source, batch.decoder_input, batch.target, batch.widths)
        return Loss(value, None, batch.terms)

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Loss, accuracy and greedy translations of the validation pairs."""
        assert isinstance(network, SequenceToSequence)
        network.eval()
        distributed, batch = self.context.distributed, self.config.batch or 0
        # A new translator, because a translator keeps the weights that it has prepacked.
        translator = dataclasses.replace(self.translator, network=network)
        self._answers = translate_together(translator, self._translated, distributed)
        return {
            **next_token_metrics(network, self.val, batch, self.context.device, distributed),
            **translation_metrics(self._answers, self._translated.references, translator.target),
        }

    def rewritten(self) -> list[str]:
        """The images that have changed while the run was reading them."""
        return [*self.train.rewritten(), *self.val.rewritten()]

    def make_row(self, state: TrainState, metrics: Mapping[str, Any], per_second: float) -> Seq2SeqMetrics:
        """The row of results.csv."""
        totals = state.totals
        return Seq2SeqMetrics(
            epoch=state.epoch + 1, step=state.step, lr=state.lr, train_loss=totals.loss, **metrics,
            seconds=totals.seconds, tokens_per_second=per_second,
        )  # fmt: skip

    def after_epoch(self, row: Any) -> None:
        """Show and write some translations of the epoch."""
        if row is not None and self.context.distributed.is_main:
            count = min(self.config.samples, len(self._answers))
            for line in write_samples(self.folder, row.epoch, self._translated, self._answers[:count]):
                self.context.progress.info(line)

    # After training

    def averaging_margin(self, best: Seq2SeqMetrics) -> float:
        """One standard error of the monitored metric, if val has few pairs (Breiman et al. 1984, 3.4.3).

        A mean of n values from 0 to 1 has at most the standard error of a share, sqrt(m (1 - m) / n).
        """
        column, _ = Seq2SeqMetrics.MONITORS[self.config.monitor or "similarity"]
        mean, n = getattr(best, column), len(self._translated)
        if column == "val_loss" or n >= MAX_TRANSLATED or not 0 < mean < 1:
            return 0.0
        return math.sqrt(mean * (1 - mean) / n)

    def evaluate_held_out(self, run: Any) -> Any:
        """Evaluate the best bundle on test, or on val."""
        split = "test" if "test" in self.data.splits else "val"
        self._best = load_translator(run.best, self.config.device)
        return measure_on(self._best, self.data, split, progress=self.context.progress)

    def report(self, run: Any, evaluation: Any) -> Any:
        """The report's content."""
        from striate.tasks.seq2seq.report import report

        return report(evaluation, run, model=self._best)

    def summary(self, run: Any, evaluation: Any) -> dict[str, Any]:
        """What `striate seq2seq train --json` prints, besides the paths."""
        best = run.best_row
        return {
            "val_error": best.val_error if best else None,
            "val_exact": best.val_exact if best else None,
            **evaluation.to_json(),
            "seconds": run.seconds,
            "notes": [*run.notes, *evaluation.notes],
        }

    @cached_property
    def _translated(self) -> Pairs:
        """The validation pairs that are translated after an epoch, evenly spaced."""
        known = np.unique(self.val.pair_index)
        count = min(MAX_TRANSLATED, len(known))
        which = known[np.linspace(0, len(known) - 1, count).astype(int)]
        return self.data.splits["val"].take(which.tolist())

    def _no_loss(self, module: nn.Module, state: TrainState) -> Loss:
        """The loss of an empty shard: zero, after a forward pass that the other processes wait for."""
        batch = self.train.batch(np.zeros(1, np.int64), self.context.device)
        with norms_in_evaluation(state.network), autocast(self.context.device, self.precision):
            value = module(batch.source, batch.decoder_input, batch.target, batch.widths)
        return Loss(value * 0.0, None, 0)

    def _note(self, message: str) -> None:
        """Warn once, and in the report."""
        if not hasattr(self, "setup") or message in self.setup.notes:
            return
        self.setup.notes.append(message)
        self.context.progress.warn(message)
