"""Model cards: metadata for Hugging Face's hub, and code that runs."""

import re
from dataclasses import replace

import pytest
import yaml
from PIL import Image

import striate
from striate.bundle import Description
from striate.exporters import Parity, model_card
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
    assert "\nA lenet, from the weights net.pth.\n" in text
    assert "trained" not in text.split("## Use")[0]
    assert "model-index" not in metadata_of(text)  # which needs the name of the dataset


def test_images_with_other_channels_have_no_example():
    assert "```python" in described()
    assert "```python" not in described(preprocess=Preprocess.for_size(32, 4))


def test_the_text_says_what_was_compared():
    text = described()
    assert "\x1b" not in text
    assert r"`c\nd`" in text
    assert "32 of 32 most probable classes are equal. The largest difference is 5.0e-07 of the" in text
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
    (tmp_path / "MODEL_CARD.md").write_text("mine")
    description = Description("classification", "lenet", {}, ("a", "b"), Preprocess.for_size(32))
    assert model_card.write(description, tmp_path / "model.pth", "state-dict", PARITY) is None
    assert (tmp_path / "MODEL_CARD.md").read_text() == "mine"
    (folder := tmp_path / "folder" / "MODEL_CARD.md").mkdir(parents=True)
    assert model_card.write(description, folder.parent / "model.pth", "state-dict", PARITY) is None
    other = tmp_path / "new"
    other.mkdir()
    for _ in range(2):
        assert (
            model_card.write(description, other / "model.pth", "state-dict", PARITY)
            == other / "MODEL_CARD.md"
        )
