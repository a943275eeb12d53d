"""The tasks by name. Reading the table imports no torch; using a task imports its modules.

A task consists of a configuration (`config`), which opens the data, and a `Task` for the training engine
(`task`). A bundle names its task, and `load` and `evaluate` then use the same row.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from striate.errors import unknown_name


@dataclass(frozen=True)
class TaskEntry:
    """Where a task is implemented; each attribute is `module:NAME`.

    Attributes:
        config: the configuration, a `RunConfig` with `open_data`; imports no torch.
        task: the `striate.training.task.Task`.
        load: a function that opens a bundle for use.
        evaluate: a function that evaluates a bundle.
        report: a function that describes an evaluation, and its run if there is one, as a report.
        evaluate_options: the options of `evaluate` that only this task has.
        max_paths: how many paths its data consist of at most.
    """

    config: str
    task: str
    load: str
    evaluate: str
    report: str
    evaluate_options: tuple[str, ...] = ()
    max_paths: int = 1

    def find(self, attribute: str) -> Any:
        """Import what an attribute names."""
        module, name = getattr(self, attribute).split(":")
        return getattr(importlib.import_module(module), name)


TASKS: dict[str, TaskEntry] = {
    "classification": TaskEntry(
        config="striate.tasks.classification.config:ClassificationConfig",
        task="striate.tasks.classification.task:Classification",
        load="striate.exporters.engines:load",
        evaluate="striate.inference.evaluation:evaluate",
        report="striate.tasks.classification.report:report",
        evaluate_options=(
            "batch",
            "workers",
            "cache",
            "path_column",
            "label_column",
            "tta",
            "calibration",
            "slice_by",
            "corruptions",
            "corruption_images",
            "network",
            "trust",
        ),
    ),
    "seq2seq": TaskEntry(
        config="striate.tasks.seq2seq.config:Seq2SeqConfig",
        task="striate.tasks.seq2seq.task:Seq2Seq",
        load="striate.exporters.translation:load",
        evaluate="striate.inference.text_evaluation:evaluate_seq2seq",
        report="striate.tasks.seq2seq.report:report",
        evaluate_options=(
            "languages",
            "beams",
            "shuffled",
            "source_columns",
            "target_columns",
            "reference_columns",
        ),
        max_paths=2,
    ),
}


def entry(name: str) -> TaskEntry:
    """The row of `TASKS` for a name; raises UsageError with near matches if there is none."""
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
