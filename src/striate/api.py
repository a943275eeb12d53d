"""The functions of `striate`: train, resume, load, evaluate and export, for every task.

Importing this module loads no torch; a function that needs it loads it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, cast, overload

from striate import bundle
from striate.errors import UsageError, translated_errors
from striate.files import expanded, probe
from striate.kernels import preload
from striate.progress import AUTO, Progress
from striate.tasks import entry
from striate.tasks.signature import (
    ClassificationConfig,
    NamedSeq2Seq,
    Seq2SeqConfig,
    document_options,
    evaluation_options,
    resume_options,
    training_options,
)
from striate.training.config_file import NAME, read_config
from striate.training.finished_run import Run
from striate.training.replay import options_of
from striate.training.run_names import announce_taken

if TYPE_CHECKING:
    from striate.exporters import Parity
    from striate.inference.classifier import Classifier
    from striate.inference.evaluation import Evaluation
    from striate.inference.onnx_classifier import OnnxClassifier
    from striate.inference.text_evaluation import TextEvaluation
    from striate.inference.translator import Translator
    from striate.studies.repeats import Repeats
    from striate.studies.runs import Trainer
    from striate.studies.tuning import Tuning
    from striate.training.config import RunConfig
    from striate.training.run_folder import TrainingRun

C = ParamSpec("C")
S = ParamSpec("S")


class _Train(Protocol[C, S]):
    """The signature of `train`: each task's options are those of its configuration."""

    @overload
    def __call__(self, data: Any = None, *, folds: int, **options: Any) -> Repeats: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, data: Any = None, *, seeds: int, **options: Any) -> Repeats: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, *args: C.args, **kwargs: C.kwargs) -> Run[Evaluation]: ...
    @overload
    def __call__(self, *args: S.args, **kwargs: S.kwargs) -> Run[TextEvaluation]: ...
    @overload
    def __call__(self, data: Any = None, *, config: str | os.PathLike[str], **options: Any) -> Run[Any]: ...


def _with_options(
    classification: Callable[C, ClassificationConfig], seq2seq: Callable[S, Seq2SeqConfig]
) -> Callable[[Callable[..., Any]], _Train[C, S]]:
    """Give `train` the keyword arguments of the configurations, for editors, `help()` and notebooks."""

    def decorate(function: Callable[..., Any]) -> _Train[C, S]:
        document_options(function)
        return cast("_Train[C, S]", function)

    return decorate


@_with_options(ClassificationConfig, NamedSeq2Seq)
@translated_errors()
def train(data: Any = None, **options: Any) -> Run[Any]:
    """Train a network, evaluate it on held-out data, and write a report; with `folds` or `seeds`, several.

    Args:
        data: for classification, a folder of class folders or anything else that `striate.data.open_data`
            opens; for seq2seq, one or two paths for `striate.data.text.pairs.open_pairs`.
        **options: `task` is `classification` (the default) or `seq2seq`; the others depend on it.
            `config` is the config.yaml or the folder of a run to repeat: its data and options, except those
            that are given here.

    Options of classification:
    {classification}

    Options of seq2seq:
    {seq2seq}

    Raises:
        DataError: nothing to train on.
        UsageError: an unknown option or an invalid value, a device that is not available, ...
        TrainingError: the loss is not finite, or memory runs out.
        TrainingInterrupted: Ctrl-C; the run folder is complete up to then, with its report.
    """
    config = configure(data, options)
    if config.is_repeated:
        from striate.studies import whole

        return whole.train(config, trainer())  # type: ignore[return-value]  # the overloads are for one run
    try:
        return finish(run_training(config))
    except KeyboardInterrupt as interrupted:
        _finish_interrupted(interrupted)
        raise


@resume_options
@translated_errors()
def resume(folder: str | os.PathLike[str], progress: Progress = AUTO, **changed: Any) -> Run[Any]:
    """Resume a run that was stopped or killed; on a CPU it ends with the weights of an uninterrupted run.

    With `epochs`, `budget` or `patience` the run gets a new length, also if it is finished: the learning rate
    schedule is computed anew. A finished run continues from its last weights, with a fresh optimizer.

    Args:
        folder: `runs/<name>`, of any task.
        progress: receives updates.
        changed: `epochs`, `budget`, `patience`; options that do not decide the weights: `device`, `workers`,
            `save_every`, `rollbacks`; and `data` if the data have moved. Objects in memory must be given
            again: data, and `network`, a network that Striate does not define. Instead of it, `trust` allows
            its code to be imported, if it has an import path: packages, separated by commas.

    Raises:
        UsageError: not a run, a changed configuration, or another process is training in it.
        TrustError: its network needs `network` or `trust`.
        DataError: changed data, or no intact checkpoint.
        TrainingError, TrainingInterrupted: as `train`.
    """
    from striate.studies import whole

    if several := whole.resume(expanded(folder), _config_of, {**changed, "progress": progress}, trainer()):
        return several  # type: ignore[return-value]  # one run is by far the usual case
    try:
        return finish(resume_training(folder, progress, **changed))
    except KeyboardInterrupt as interrupted:
        _finish_interrupted(interrupted)
        raise


@training_options(ClassificationConfig)
@translated_errors()
def tune(data: Any = None, *, budget: str | None = None, trials: int | None = None, **options: Any) -> Tuning:
    """Search for the learning rate, weight decay, augmentation and trained layers that suit a dataset.

    Args:
        data: as for `train`.
        budget: time limit for all trials, such as 30m, which is the default without `trials`.
        trials: largest number of trials.
        options: of `train`, for all trials; what is given is not searched.

    Raises:
        DataError, UsageError, TrainingError, KeyboardInterrupt: as `train`; `resume` continues the search.
    """
    from striate.studies import whole

    return whole.tune(configure(data, options), options, budget, trials, trainer())


@training_options(Seq2SeqConfig)
def train_seq2seq(*data: str | os.PathLike[str], **options: Any) -> Run[TextEvaluation]:
    """`train(data, task="seq2seq", ...)`."""
    return cast("Run[TextEvaluation]", train(data, **{**options, "task": "seq2seq"}))


@translated_errors()
def load(
    path: str | os.PathLike[str],
    device: str = "auto",
    *,
    engine: str = "",
    network: Any = None,
    trust: str = "",
) -> Any:
    """Open a bundle for use, on any device; executes no code from the file.

    Args:
        path: a bundle; a run folder, whose `best.safetensors` is opened; or an ONNX file that `export` wrote.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        engine: what runs it: `torch`, the default; or as `striate.exporters.engines.load`.
        network: for a classifier whose network Striate does not define: an `nn.Module` of its layers, which
            is copied, or a function that returns one, as it was given for training.
        trust: packages whose code may be imported to build such a network, separated by commas.

    Returns:
        A `Classifier` or a `Translator`, depending on the bundle's task; in ONNX Runtime an `OnnxClassifier`.

    Raises:
        BundleError: missing, damaged, or not a bundle.
        TrustError: its network needs `network` or `trust`.
        UsageError: the device is not available.
    """
    more = {"network": network, "trust": trust} if network is not None or trust else {}
    task = entry("classification") if bundle.is_onnx(path) else _task_of(path)
    if more and "trust" not in task.evaluate_options:
        why = "only image classifiers have other networks"
        raise UsageError("network= and trust=", why, "Leave them out")
    more |= {"engine": engine} if engine else {}
    model: Classifier | Translator | OnnxClassifier = task.find("load")(path, device, **more)
    return model


@evaluation_options
@translated_errors()
def evaluate(model: Any, data: Any = None, **options: Any) -> Any:
    """Evaluate a model on labeled data.

    Args:
        model: a bundle, a run folder, a `Classifier` or a `Translator`.
        data: as for `train`; None for what the run of this bundle held out (classification only).
        options: of the task's function (`striate.inference.evaluation.evaluate` or
            `striate.inference.text_evaluation.evaluate_seq2seq`): `split`, `batch`, `beams`, `device`, ...

    Returns:
        An `Evaluation` or a `TextEvaluation`.

    Raises:
        BundleError, DataError, UsageError: as the task's function.
    """
    if not isinstance(model, (str, os.PathLike)) and not hasattr(model, "description"):
        fix = "Give a bundle, a run folder, or what `striate.load` returns"
        raise UsageError(f"a {type(model).__name__} is no model of Striate", "it has no classes", fix)
    is_path = isinstance(model, (str, os.PathLike))
    task = _task_of(model) if is_path else entry(model.description.task)
    if is_path and data is None and probe(folder := bundle.path_of(model).parent / NAME) is not None:
        what = f"cannot evaluate {str(folder.parent)!r}"
        read_config(folder.parent, _config_of, what)  # refuses a damaged one, as `resume` does
    return task.find("evaluate")(model, data, **options)


@translated_errors()
def export(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str,
    samples: tuple[str, ...] = (),
    *,
    data: Any = None,
    max_loss: float = 1.0,
    network: Any = None,
    trust: str = "",
) -> Parity:
    """Write a model in the format of another tool, and run the result next to the original.

    Args:
        model: a bundle or a run folder.
        out: the file or folder to write; the comparison is added to `EXPORT.md` next to it.
        format: a key of `striate.exporters.FORMATS`.
        samples: inputs for the comparison: texts or image files.
        data: labeled images for the comparison, as for `evaluate`. Without them and samples, images are
            those that the run held out, else installed photographs; texts are random.
        max_loss: points of accuracy that a format with fewer bits may lose.
        network: as for `load`.
        trust: as for `load`.

    Raises:
        UsageError: an unknown format, one that cannot hold the model, or a package that is not installed.
        WriteError: `out` exists or cannot be written, or it differs from the original; then it is removed.
    """
    from striate.exporters import export as write

    opened = load(model, "cpu", network=network, trust=trust)
    return write(opened, expanded(out), format, samples, data=data, max_loss=max_loss)


def configure(data: Any, options: dict[str, Any]) -> RunConfig:
    """The configuration for what a user gave; messages about it go to `options["progress"]`.

    Args:
        data: as for `train`; None for that of `options["config"]`.
        options: as for `train`.

    Raises:
        UsageError: no data, an unknown option or an invalid value.
    """
    options = _config_of(options.get("task", "classification")).given(options)
    given = set(options)
    if (saved := options.pop("config", None)) is not None:
        options = {**options_of(saved, options.get("task"), _config_of), **options}
        saved_data = options.pop("data", None)
        data = saved_data if data is None else data
    if data is None:
        raise UsageError("no data to train on", "", "Give a folder")
    config, messages = _config_of(options.get("task", "classification")).from_user({**options, "data": data})
    config.require_effects(given)  # a recipe or an earlier run may set what now has none
    for message in messages:
        config.progress.info(message)
    config.announce_budget()
    if config.parquet:
        from striate.report.page import require_parquet

        require_parquet()
    return config


def _config_of(task: str) -> type[RunConfig]:
    return cast("type[RunConfig]", entry(task).find("config"))


def run_training(config: RunConfig) -> TrainingRun:
    """Train without the final evaluation; the first data are read while torch is being imported.

    Raises:
        DataError, UsageError, TrainingError, TrainingInterrupted: as `train`.
    """
    if config.is_named:
        announce_taken(config)
    preload.load_libraries()
    with config.open_data() as data:
        with preload.without_garbage_collection():
            from striate.training import run

            task = entry(config.task).find("task")
        return run.train(task, config, data)


def resume_training(folder: str | os.PathLike[str], progress: Progress = AUTO, **changed: Any) -> TrainingRun:
    """Resume training without the final evaluation.

    Raises:
        DataError, UsageError, TrainingError, TrainingInterrupted: as `resume`.
    """
    from striate.training import run

    if changed.get("parquet"):
        from striate.report.page import require_parquet

        require_parquet()
    task = entry(read_config(expanded(folder), _config_of)["task"])
    return run.resume(task.find("task"), task.find("config"), folder, {**changed, "progress": progress})


def trainer() -> Trainer:
    """How a study of several runs trains each of them."""
    from striate.studies.whole import Trainer

    return Trainer(run_training, resume_training, finish)


def finish(training: TrainingRun) -> Run[Any]:
    """Evaluate the best bundle on held-out data, add the metrics to it, and write the report.

    Of several processes each evaluates, and the main one writes; the others must be able to read its folder.
    """
    from striate.report.page import write_report

    evaluation = training.task.evaluate_held_out(training)
    if evaluation.split == "val":
        note = "The best epoch was chosen on these val data, so these figures are slightly optimistic"
        evaluation = dataclasses.replace(evaluation, notes=(*evaluation.notes, note))
    page = training.folder / "report.html"
    if training.is_main:
        metrics = {evaluation.split: evaluation.headline()}
        bundle.add_metrics(training.best, metrics, evaluation.calibration, evaluation.unknown)
        config = training.config
        page = write_report(
            training.task.report(training, evaluation), training.folder, training,
            figures=config.figures, full=config.full, parquet=config.parquet,
        )  # fmt: skip
    return Run(training, evaluation, page)


def _finish_interrupted(interrupted: KeyboardInterrupt) -> None:
    """Evaluate and report what an interrupted run has reached, unless there is no time."""
    run = getattr(interrupted, "run", None)
    if run is not None and not interrupted.terminated:  # type: ignore[attr-defined]
        finish(run)


def _task_of(path: str | os.PathLike[str]) -> Any:
    return entry(bundle.describe(bundle.path_of(path)).task)
