"""Model cards: metadata for Hugging Face's hub, and code that runs."""

import re
from dataclasses import replace

import pytest
import yaml
from PIL import Image

import striate
from striate.bundle import Description
from striate.exporters import Parity, comparison, model_card
from striate.transforms.preprocess import Preprocess

PARITY = Parity(32, 32, 5e-7, "most probable classes", "of the largest score")


DESCRIPTION = Description(
    "classification", "lenet", {}, ("a`b", "c\nd"), Preprocess.for_size(32),
    {"val": {"n": 5, "top1": 0.8, "ece": 0.1, "macro_f1": 0.75}},
    {"striate": "0.1.0", "data": "flow\x1bers", "weights": "pretrained"},
)  # fmt: skip


def described(parity=PARITY, **changes):
    return model_card.card(replace(DESCRIPTION, **changes), "model.onnx", "onnx", parity)


def metadata_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_metadata_are_yaml():
    metadata = metadata_of(described())
    assert metadata["library_name"] == "striate"
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["tags"] == ["striate", "lenet", "onnx"]
    (result,) = metadata["model-index"][0]["results"]
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [("accuracy", 0.8), ("macro_f1", 0.75)]
    assert result["dataset"]["name"] == "flow\x1bers"


def test_the_task_of_a_sequence_model_is_that_of_its_inputs():
    for preprocess, pipeline in ((None, "translation"), (DESCRIPTION.preprocess, "image-to-text")):
        model = replace(
            DESCRIPTION, task="seq2seq", classes=(), preprocess=preprocess, metrics={"val": {"bleu": 0.5}}
        )
        metadata = metadata_of(model_card.card(model, "model", "torch-export", PARITY))
        assert metadata["pipeline_tag"] == pipeline
        assert metadata["model-index"][0]["results"][0]["task"]["type"] == pipeline


def test_a_model_that_striate_did_not_train():
    text = described(provenance={"striate": "0.1.0", "imported_from": "net.pth"})
    assert "\n`lenet`, from the weights `net.pth`.\n" in text
    assert "trained" not in text.split("## Use")[0]
    assert "model-index" not in metadata_of(text)  # which needs the name of the dataset


def test_images_with_other_channels_have_no_example():
    assert "```python" in described()
    assert "```python" not in described(preprocess=Preprocess.for_size(32, 4))


def test_the_example_says_what_it_leaves_out():
    assert "large JPEG files" not in described()
    reducing = replace(DESCRIPTION.preprocess, reducing_gap=2.0)
    assert "also crops, and decodes large JPEG files" in described(preprocess=reducing)


def test_the_text_says_what_was_compared():
    text = described()
    assert "\x1b" not in text
    assert r"`c\nd`" in text
    assert "32 of 32 most probable classes equal. Largest difference: 5.0e-07 of the largest score." in text
    assert "It was not compared" in described(parity=Parity(0, 0, 0.0))


def test_the_example_runs(run, few_colors, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    striate.export(run.best, tmp_path / "model.onnx", "onnx")
    picture = next(few_colors.rglob("red/*.png"))
    Image.open(picture).save(tmp_path / "photo.jpg", quality=95)
    text = (tmp_path / "MODEL_CARD.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "MODEL_CARD.md", "exec"), {})
    assert capsys.readouterr().out.strip() == striate.load(run.best).predict("photo.jpg").label


def test_the_card_of_someone_else_stays(tmp_path):
    description = Description("classification", "lenet", {}, ("a", "b"), Preprocess.for_size(32))

    def written(path):
        return model_card.write(description, path, "state-dict", PARITY)

    for name in ("MODEL_CARD.md", "model.pth.MODEL_CARD.md"):
        (tmp_path / name).write_text("mine")
    assert written(tmp_path / "model.pth") is None
    assert (tmp_path / "MODEL_CARD.md").read_text() == "mine"
    (folder := tmp_path / "folder" / "MODEL_CARD.md").mkdir(parents=True)
    assert written(folder.parent / "model.pth") == folder.parent / "model.pth.MODEL_CARD.md"
    other = tmp_path / "new"
    other.mkdir()
    for _ in range(2):
        assert written(other / "model.pth") == other / "MODEL_CARD.md"


def test_two_exports_in_a_folder_keep_both_cards_and_comparisons(tmp_path):
    names = ("a.onnx", "b.pth")
    for name in (*names, *names):
        model_card.write(DESCRIPTION, tmp_path / name, "onnx", PARITY)
        comparison.write(tmp_path / name, "onnx", PARITY)
    first, second = tmp_path / "MODEL_CARD.md", tmp_path / "b.pth.MODEL_CARD.md"
    assert "\n# a.onnx\n" in first.read_text("utf-8")
    assert "\n# b.pth\n" in second.read_text("utf-8")
    text = (tmp_path / "EXPORT.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["a.onnx", "b.pth"]
    changed = replace(PARITY, n=64, equal=63, accuracy=(0.75, 0.5), milliseconds=(3.0, 1.25), notes=("So.",))
    comparison.write(tmp_path / "a.onnx", "onnx", changed)
    one, other = (tmp_path / "EXPORT.md").read_text("utf-8").split("\n## ")[1:]
    assert "| most probable classes, equal | 63 of 64 |" in one
    assert "| top-1 accuracy | 0.5000 | 0.7500 |" in one
    assert "| latency of one, ms | 1.25 | 3.00 |" in one
    assert one.rstrip().endswith("So.")
    assert "| 32 of 32 |" in other
    assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, "EXPORT.md"}


def test_the_comparison_of_someone_else_stays(tmp_path):
    (tmp_path / "EXPORT.md").write_text("mine")
    assert comparison.write(tmp_path / "a.onnx", "onnx", PARITY) is None
    assert (tmp_path / "EXPORT.md").read_text() == "mine"
