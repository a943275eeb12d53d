"""The images of a run: read ahead before torch is imported, and compared when a run is resumed."""

import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from conftest import COLORS, Messages, make_images
from exact_resume import outcome, start, start_and_crash

from striate import bundle
from striate.api import resume_training, run_training
from striate.data import open_data
from striate.data.check.labels import continuous_labels
from striate.errors import DataError, UsageError
from striate.inference.evaluation import evaluate
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.data import ImageData, data_changes
from striate.tasks.classification.task import Classification
from striate.training.config_file import read_config
from striate.training.run import train
from striate.transforms import preprocess


@pytest.fixture
def decoded(monkeypatch):
    """How often each file has been decoded."""
    times = Counter()

    def counted(decoder):
        def wrapper(source, *arguments, **options):
            times[str(source)] += 1
            return decoder(source, *arguments, **options)

        return wrapper

    for name in ("decode", "open_pixels"):
        monkeypatch.setattr(preprocess, name, counted(getattr(preprocess, name)))
    return times


def config_of(data, tmp_path, **options):
    options = {"model": "lenet", "epochs": 1, "batch": 8, "out": str(tmp_path / "runs"), **options}
    return ClassificationConfig(str(data), **options)


@pytest.mark.parametrize("options", [{}, {"imgsz": 80}])
def test_no_file_is_decoded_twice_and_the_weights_are_those_without_reading_ahead(
    options, colors, tmp_path, monkeypatch, decoded
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("striate.data.images.decoded._CLOCK_NS", 0)  # the files of this test are new
    run = run_training(config_of(colors, tmp_path, **options))
    names = [name for split in ("train", "val") for name in run.task.dataset.splits[split].names]
    assert decoded == Counter(names)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    config = config_of(colors, tmp_path, **options)
    other = train(Classification, config, ImageData(config))
    assert bundle.inspect(run.last).weights_sha256 == bundle.inspect(other.last).weights_sha256


def test_what_was_read_ahead_is_not_read_again(colors, tmp_path, monkeypatch, decoded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = config_of(colors, tmp_path)
    opened = ImageData(config)
    images, _ = opened.images(config.own_preprocess(None), config)
    assert not decoded
    with opened:
        pass  # what has started is finished, the rest is canceled
    before = Counter(decoded)
    out = np.empty((len(images), *images.shape), np.uint8)
    assert images.read(np.arange(len(images)), out).all()
    assert all(decoded[name] == 1 for name in images.names)
    assert before <= decoded


def test_the_first_step_comes_before_heavy_imports(colors, tmp_path):
    """Data are opened and read without torch, and torch's compiler is not imported, not even by a trace."""
    code = f"""
import sys
import striate
from striate.progress import Progress
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.data import ImageData, data_changes

with ImageData(ClassificationConfig({str(colors)!r}, model="lenet", out={str(tmp_path)!r})) as opened:
    opened.warnings()
assert "torch" not in sys.modules

for name in ("googlenet", "vit_ti_16"):
    striate.anatomy.trace(name)

class FirstStep(Progress):
    def advance(self, done, **figures):
        print(*sorted({{name.split(".")[0] for name in sys.modules}}), "torch._dynamo" in sys.modules)
        raise KeyboardInterrupt

try:
    striate.train({str(colors)!r}, progress=FirstStep(), model="resnet20", epochs=1, out={str(tmp_path)!r})
except KeyboardInterrupt:
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *loaded, compiler = done.stdout.split("\n")[0].split()
    assert "torch" in loaded, done.stderr
    assert not {"matplotlib", "sklearn", "scipy", "jinja2", "rich", "sympy"} & set(loaded)
    assert compiler == "False"


def test_too_little_to_train_on_is_an_error(tmp_path):
    def run(data):
        return run_training(config_of(data, tmp_path))

    for name in ("red", "blue"):
        make_images(tmp_path / "data" / name, 5, COLORS[name])
    for path in (tmp_path / "data" / "red").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="only 1 classes have training images left"):
        run(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "red")
    with pytest.raises(DataError, match="it has one class, 'blue'"):
        run(tmp_path / "data")
    make_images(tmp_path / "two" / "a", 1, COLORS["red"])
    make_images(tmp_path / "two" / "b", 1, COLORS["red"])
    with pytest.raises(DataError, match="at least three images"):
        run(tmp_path / "two")
    assert not list((tmp_path / "runs").iterdir())  # no empty folders of runs that never began


def test_one_level_too_many_says_which_folder_to_give(tmp_path):
    for name in ("red", "blue"):
        make_images(tmp_path / "data" / "top" / name, 4, COLORS[name])
    with pytest.raises(DataError) as error:
        ImageData(config_of(tmp_path / "data", tmp_path))
    assert "'top' contains the folders 'blue', 'red'" in str(error.value)
    assert str(error.value).endswith(f"give {str(tmp_path / 'data' / 'top')!r}")


def test_output_inside_of_a_class_is_refused(few_colors, tmp_path):
    with pytest.raises(UsageError, match="whose images are the class 'red'"):
        ImageData(config_of(few_colors, tmp_path, out=str(few_colors / "red" / "runs")))


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        ([f"{i / 7:.4f}" for i in range(60)], True),  # each value once
        ([str(1000 + 17 * i) for i in range(60)], True),
        ([f"{(i % 25) / 10}" for i in range(200)], True),  # many fractions
        ([str(i % 100) for i in range(400)], False),  # numbers of classes, as in CIFAR-100
        ([f"{i % 10 / 2}" for i in range(100)], True),  # ten ratings
        ([f"{i}x" for i in range(60)], False),
    ],
)
def test_continuous_labels_are_named(tmp_path, labels, refused):
    rows = "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels))
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}")
    why = continuous_labels(open_data(tmp_path / "t.csv"))
    assert bool(why) == refused
    if refused:
        with pytest.raises(
            DataError, match=r"labels are numbers such as .* not supported\. Striate learns classes"
        ):
            ImageData(config_of(tmp_path / "t.csv", tmp_path))


def test_file_names_of_any_bytes_and_blanks_survive_a_run(tmp_path):
    """`evaluate` and `resume` read split.csv, data.csv and config.yaml as they were written."""
    root = tmp_path / "odd\x85 \r"
    names = {"cat": b" a\r", "cat\r": b'\xff"', " dog ": b"=1,", "#x": b"a\nb"}
    for name, first in names.items():
        make_images(root / name, 5, COLORS["red"])
        (root / name / "000.png").rename(root / name / os.fsdecode(first + b".png"))
    done = run_training(config_of(root, tmp_path))
    assert done.task.dataset.classes == tuple(sorted(names))
    assert data_changes(done.folder, ImageData(config_of(root, tmp_path)).dataset) == []
    assert read_config(done.folder)["data"] == str(root)
    for split in ("train", "val", "test"):
        own = evaluate(done.folder, split=split)
        samples = done.task.dataset.splits[split]
        assert own.names == samples.names
        assert own.labels.tolist() == samples.labels.tolist()
        assert not own.extra_classes
    everything = evaluate(done.folder, split="all")
    assert everything.n == 20
    assert any("all splits are scored together" in note for note in everything.notes)


def test_columns_of_a_table_are_those_of_the_run(few_colors, tmp_path):
    rows = [(path, path.parent.name, i) for i, path in enumerate(sorted(few_colors.glob("*/*.png")))]
    table = "".join(f"{i},{path},{name},{'xy'[i % 2]}\n" for path, name, i in rows)
    (tmp_path / "t.csv").write_text(f"id,photo,colour,class\n{table}", "utf-8")
    columns = {"path_column": "photo", "label_column": "colour"}
    done = run_training(config_of(tmp_path / "t.csv", tmp_path, **columns))
    assert done.task.dataset.classes == ("blue", "green", "red")
    assert evaluate(done.folder).n == len(done.task.dataset.splits["test"])
    assert evaluate(done.best, tmp_path / "t.csv", split="all").n == len(rows)
    shutil.copy(done.best, tmp_path / "alone.safetensors")
    assert evaluate(tmp_path / "alone.safetensors", tmp_path / "t.csv", **columns).n == len(rows)


def test_groups_of_a_run_stay_together_when_it_is_resumed_and_evaluated(few_colors, tmp_path):
    options = {"group_pattern": r"(\w+)/\d\d(\d)"}  # 000.png and 010.png, for example
    whole = start(few_colors, tmp_path / "whole", **options)
    splits = whole.task.dataset.splits
    groups = [group for samples in splits.values() for group in set(samples.groups)]
    assert sorted(groups) == sorted(f"{name}/{digit}" for name in COLORS for digit in range(10))
    written = (whole.folder / "split.csv").read_text().splitlines()
    assert written[0] == "path,label,split,group"
    assert written[1].endswith(f",train,{splits['train'].groups[0]}")
    folder = start_and_crash(few_colors, tmp_path, 2, **options)
    resume_training(folder)
    assert outcome(folder) == outcome(whole.folder)
    assert evaluate(folder, split="val").names == splits["val"].names
    with pytest.raises(UsageError, match="--group-column with --group-pattern"):
        config_of(few_colors, tmp_path, group_column="x", **options)
    with pytest.raises(DataError, match="Give each class at least three groups of images"):
        ImageData(config_of(few_colors, tmp_path, group_pattern=r"\w+/"))


def test_classes_without_training_images_are_left_out_by_name(tmp_path):
    for split, names in (("train", ("red", "blue")), ("val", ("red", "blue", "green"))):
        for name in names:
            make_images(tmp_path / "data" / split / name, 4, COLORS[name])
    messages = Messages()
    done = run_training(config_of(tmp_path / "data", tmp_path, progress=messages))
    assert done.task.dataset.classes == ("blue", "red")
    expected = "class 'green' has no training images: its 4 other images are left out"
    assert expected in messages.warnings


def test_changed_data_are_refused(few_colors, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(few_colors, copy)
    folder = start_and_crash(copy, tmp_path, 3)
    (copy / "red" / "000.png").unlink()
    os.utime(copy / "red" / "001.png", (1, 1))
    content = (copy / "red" / "002.png").read_bytes()
    (copy / "red" / "002.png").write_bytes(content + b"!")
    shutil.copy(copy / "blue" / "000.png", copy / "blue" / "012.png")
    with pytest.raises(DataError) as caught:
        resume_training(folder)
    message = str(caught.value)
    assert "1 missing: red/000.png" in message
    assert "red/001.png (modified since)" in message
    assert f"red/002.png ({len(content):,} bytes, now {len(content) + 1:,})" in message
    assert "1 new: blue/012.png" in message


def test_data_may_move(few_colors, uninterrupted, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(few_colors, copy)
    folder = start_and_crash(copy, tmp_path, 3)
    copy.rename(tmp_path / "elsewhere")
    resume_training(folder, data=str(tmp_path / "elsewhere"))
    assert outcome(folder) == uninterrupted


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        ([18 + i % 60 for i in range(600)], True),  # ages
        ([i % 5 / 2 for i in range(100)], True),  # ratings with halves
        ([f"{i % 5 + 1},5" for i in range(100)], True),
        ([i % 30 for i in range(300)], False),  # ids of classes
        ([i % 30 + 1 for i in range(300)], False),
        ([i % 2 * 7 for i in range(100)], False),
        ([f"id-{3 * (i % 30)}" for i in range(300)], False),
    ],
)
def test_measured_values_of_a_table_are_refused(tmp_path, labels, refused):
    rows = (f'{i}.png,"{label}"\n' for i, label in enumerate(labels))
    (tmp_path / "t.csv").write_text("path,value\n" + "".join(rows))
    found = open_data(tmp_path / "t.csv", label_column="value")
    assert bool(continuous_labels(found)) == refused
    if refused:
        with pytest.raises(DataError, match="regression and ordinal targets are not supported"):
            ImageData(config_of(tmp_path / "t.csv", tmp_path, label_column="value"))


def test_numbers_that_are_used_as_names_are_noted(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{i}.png,{i % 5 + 1}\n" for i in range(50)))
    notes = ImageData(config_of(tmp_path / "t.csv", tmp_path)).notes
    assert notes[0].startswith("the labels are the numbers 1 to 5: each is the name of a class")
