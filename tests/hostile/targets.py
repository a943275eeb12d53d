"""Every command and public function of Striate, called with small material.

`COMMANDS` and `FUNCTIONS` are complete: `test_hostile.py` compares them with the command table and the public
names. `{data}` and other words in braces stand for the paths of `Material`.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Material:
    """The paths that a call reads, and `out`, the one that it writes."""

    data: str
    model: str
    text_model: str
    pairs: str
    lines: str
    image: str
    gt: str
    dt: str
    pth: str
    run: str
    out: str

    @classmethod
    def make(cls, root: Path, data: Path, run: Path, text_run: Path, pairs: Path) -> "Material":
        """Write what there is not yet."""
        import torch

        row = {"image_id": 1, "category_id": 3, "bbox": [10, 10, 40, 40]}
        truth = {"images": [{"id": 1}], "categories": [{"id": 3, "name": "cat"}]}
        truth["annotations"] = [{**row, "id": 1, "area": 1600, "iscrowd": 0}]
        (root / "gt.json").write_text(json.dumps(truth))
        (root / "dt.json").write_text(json.dumps([{**row, "score": 0.9}]))
        (root / "lines.txt").write_text("abc\ndcba\n")
        from striate import bundle

        torch.save(bundle.read(run / "best.safetensors")[1], root / "lenet.pth")
        image = next((data / "red").iterdir())
        shutil.copy(image, root / "image.png")
        return cls(
            str(data), str(run / "best.safetensors"), str(text_run / "best.safetensors"), str(pairs),
            str(root / "lines.txt"), str(root / "image.png"), str(root / "gt.json"), str(root / "dt.json"),
            str(root / "lenet.pth"), str(run), str(root / "out"),
        )  # fmt: skip

    def replaced(self, **paths: str) -> "Material":
        """The same with other paths."""
        return dataclasses.replace(self, **paths)


TRAIN = "--epochs 1 --batch 12 --name x --out {out}"
TEXT = "--width 16 --depth 1 --heads 2 --hidden 16 --batch 400"
COMMANDS = {
    "demo": ["demo --out {out}"],
    "train": [
        f"train {{data}} --model lenet {TRAIN}",
        f"train {{data}} --model lenet --weights {{pth}} --transfer head --json {TRAIN}",
    ],
    "tune": [
        f"tune {{data}} --model lenet --trials 1 {TRAIN}",
        f"tune {{data}} --model lenet --trials 1 --json {TRAIN}",
    ],
    "resume": ["resume {run}", "resume {run} --json"],
    "recipes": ["recipes", "recipes lenet"],
    "evaluate": ["evaluate {model} {data} --device cpu --out {out}", "evaluate {run} --json"],
    "predict": ["predict {model} {image}", "predict {model} - --json", "predict {model} {data} --csv"],
    "compare": ["compare {model} {run} --data {data} --out {out}", "compare {model} {model} --json"],
    "calibrate": ["calibrate {model} {data}", "calibrate {model} --json"],
    "embed": ["embed {model} {data} --out {out}.npz --json"],
    "explain": [
        "explain {model} {image} --out {out} --json", "explain {model} {data} --no-test --out {out}",
        "explain {text_model} abc --out {out}",
    ],
    "explore filters": ["explore filters {model} --out {out}"],
    "explore maps": ["explore maps {model} {image} --out {out} --json"],
    "explore channel": ["explore channel {model} conv1:0 {data} --out {out}"],
    "explore nearest": ["explore nearest {model} {image} {data} --out {out}"],
    "explore prototypes": ["explore prototypes {model} {data} --count 2 --out {out} --json"],
    "export": ["export {model} --to state-dict --out {out}", "export {model} --to torchscript --out {out}"],
    "check": ["check {data} --out {out}", "check {data} --no-page --json"],
    "detection": ["detection {gt} {dt} --json", "detection {gt} {dt} --style voc12"],
    "seq2seq train": [f"seq2seq train {{pairs}} {TEXT} {TRAIN}"],
    "seq2seq evaluate": ["seq2seq evaluate {text_model} {pairs} --json"],
    "seq2seq translate": ["seq2seq translate {text_model} --file {lines}", "seq2seq translate {text_model}"],
    "anatomy": [
        "anatomy {model}", "anatomy lenet --json", "anatomy lenet --html {out}",
        "anatomy lenet --erf {image} --out {out}",
    ],
    "view": ["view {run} --no-open --port 0", "view {run} --json --port 0"],
    "weights list": ["weights list", "weights list --json"],
    "weights get": ["weights get resnet18"],
    "weights import": ["weights import {pth} --out {out}"],
    "weights inspect": ["weights inspect {model}", "weights inspect {run} --tensors --json"],
    "doctor": ["doctor", "doctor --clear-cache --json"],
}  # fmt: skip


def _train(m):
    import striate

    return striate.train(m.data, model="lenet", epochs=1, batch=12, out=m.out, name="x")


def _tune(m):
    import striate

    return striate.tune(m.data, model="lenet", trials=1, epochs=1, batch=12, out=m.out, name="x")


def _train_text(m):
    import striate

    small = {"width": 16, "depth": 1, "heads": 2, "hidden": 16, "batch": 400}
    return striate.train_seq2seq(m.pairs, epochs=1, out=m.out, name="x", **small)


def _pixels():
    return np.full((20, 20, 3), 128, np.uint8)


def _tensor():
    import torch

    return torch.full((2, 3, 32, 32), 128, dtype=torch.uint8, device="cpu")


def _load(m):
    import striate

    return striate.load(m.model, "cpu")


def _anatomy(name, *arguments, **options):
    import striate.anatomy

    return getattr(striate.anatomy, name)(*arguments, **options)


def _data(name, *arguments):
    import striate.data

    return getattr(striate.data, name)(*arguments)


def _explainer(m):
    """An explainer of the model, and one image."""
    import striate

    return striate.explain.Explainer(_load(m).network, (3, 32, 32)), _tensor()[:1].float() / 255


def _detection(name, *arguments):
    import striate.metrics.detection

    return getattr(striate.metrics.detection, name)(*arguments)


def _transform(name, *arguments, **options):
    import striate.transforms

    transform = getattr(striate.transforms, name)(*arguments, **options)
    return transform(_tensor())


def _mixed(name):
    import torch

    import striate.transforms

    mix = getattr(striate.transforms, name)(num_classes=2)
    return mix(_tensor().float(), torch.tensor([0, 1], device="cpu"))


def _split(m):
    import striate.data

    return striate.data.split(striate.data.open_data(m.data), striate.data.SplitPlan())


def _decoded(m):
    import striate
    from striate.data import DecodedImages, open_data

    images = DecodedImages(open_data(m.data).splits["all"], striate.Preprocess.for_size(80))
    return images.read(np.array([0]), np.empty((1, *images.shape), np.uint8))


def _truth(m):
    from striate.metrics.detection import detections, evaluate_coco, evaluate_voc, ground_truth

    truth = ground_truth(image=[1], category=[3], box=[[1, 1, 5, 5]])
    found = detections(image=[1], category=[3], box=[[1, 1, 5, 5]], score=[0.5], truth=truth)
    return evaluate_coco(truth, found), evaluate_voc(truth, found)


def _coco_eval(m):
    from striate.metrics.detection import COCO, COCOeval

    truth = COCO(m.gt)
    evaluator = COCOeval(truth, truth.loadRes(m.dt), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.summarize()


def _with_masks(m):
    truth = _detection("read_ground_truth_with", m.gt, "bbox")
    found = _detection("read_detections_with", m.dt, truth, "bbox")
    settings = _detection("settings_for", "coco")
    return _detection("evaluate_as", "coco", truth, found, settings), truth, found


def _federated(m):
    from striate.metrics.detection import Federated, detections, evaluate_lvis, federate, ground_truth

    none = np.empty((0, 2), np.int64)
    truth = ground_truth(image=[1], category=[3], box=[[1, 1, 5, 5]])
    found = detections(image=[1], category=[3], box=[[1, 1, 5, 5]], score=[0.5], truth=truth)
    truth = dataclasses.replace(truth, federated=Federated(none, none, ("r",)))
    return evaluate_lvis(truth, found, _detection("lvis_settings")), federate(truth, found)


def _meter(m):
    from striate.metrics.detection import MeanAveragePrecision

    meter = MeanAveragePrecision()
    box = {"boxes": np.array([[0, 0, 5, 5]]), "labels": np.array([1])}
    meter.update([{**box, "scores": np.array([0.5])}], [box])
    return meter.compute()


def _function(module, name):
    import importlib

    return getattr(importlib.import_module(module), name)


_FUNCTIONS = {
    "striate.train": _train,
    "striate.train_seq2seq": _train_text,
    "striate.resume": lambda m: _function("striate", "resume")(m.run),
    "striate.load": _load,
    "striate.load_translator": lambda m: _function("striate", "load_translator")(m.text_model, "cpu"),
    "striate.evaluate": lambda m: _function("striate", "evaluate")(m.model, m.data, device="cpu"),
    "striate.evaluate_seq2seq": lambda m: _function("striate", "evaluate_seq2seq")(m.text_model, m.pairs),
    "striate.explain_seq2seq": lambda m: _function("striate", "explain_seq2seq")(
        _function("striate", "load_translator")(m.text_model, "cpu"), "abc"
    ),
    "striate.compare": lambda m: _function("striate", "compare")(m.model, m.run, data=m.data, device="cpu"),
    "striate.calibrate": lambda m: _function("striate", "calibrate")(m.model, m.data, device="cpu"),
    "striate.tune": _tune,
    "striate.export": lambda m: _function("striate", "export")(m.model, m.out, "state-dict"),
    "striate.check": lambda m: _function("striate", "check")(m.data),
    "striate.Classifier": lambda m: [_load(m).predict(m.image), _load(m).predict(_pixels())],
    "striate.Translator": lambda m: _function("striate", "load_translator")(m.text_model).translate(["abc"]),
    "striate.Preprocess": lambda m: _function("striate", "Preprocess").for_size(32).read(m.image),
    "striate.anatomy.trace": lambda m: _anatomy("trace", "lenet"),
    "striate.anatomy.check": lambda m: _anatomy("check", "lenet", size=(16, 16)),
    "striate.anatomy.effective_field": lambda m: _anatomy(
        "effective_field", _function("striate.models", "build")("lenet"), _tensor().float()[:1]
    ),
    "striate.anatomy.conv_output_size": lambda m: _anatomy("conv_output_size", 9, 3),
    "striate.anatomy.explain": lambda m: _anatomy("explain", size=9, kernel=3, channels=3, filters=4),
    "striate.anatomy.receptive_field": lambda m: _anatomy("receptive_field", [3, 3]),
    "striate.anatomy.reduction": lambda m: _anatomy("reduction", 9, 8, 8, 3, 2),
    "striate.anatomy.stack": lambda m: _anatomy("stack", [3, 3]),
    "striate.data.open_data": lambda m: _data("open_data", m.data),
    "striate.data.absolute_source": lambda m: _data("absolute_source", m.data),
    "striate.data.split": _split,
    "striate.data.first_problems": lambda m: _data("first_problems", []),
    "striate.data.left_out": lambda m: _data("left_out", [_data("Problem", m.image, "it is empty")]),
    "striate.data.DecodedImages": _decoded,
    "striate.metrics.detection.evaluate": lambda m: _detection("evaluate", m.gt, m.dt),
    "striate.metrics.detection.read_ground_truth": lambda m: _detection("read_ground_truth", m.gt),
    "striate.metrics.detection.read_detections": lambda m: _detection(
        "read_detections", m.dt, _detection("read_ground_truth", m.gt)
    ),
    "striate.metrics.detection.ground_truth": _truth,
    "striate.metrics.detection.detections": _truth,
    "striate.metrics.detection.evaluate_coco": _truth,
    "striate.metrics.detection.evaluate_voc": _truth,
    "striate.metrics.detection.evaluate_as": lambda m: _with_masks(m)[0],
    "striate.metrics.detection.settings_for": lambda m: _detection("settings_for", "coco"),
    "striate.metrics.detection.read_ground_truth_with": _with_masks,
    "striate.metrics.detection.read_detections_with": _with_masks,
    "striate.metrics.detection.evaluate_lvis": _federated,
    "striate.metrics.detection.federate": _federated,
    "striate.metrics.detection.lvis_settings": _federated,
    "striate.metrics.detection.init_as_pycocotools": lambda m: _detection("init_as_pycocotools"),
    "striate.metrics.detection.COCO": _coco_eval,
    "striate.metrics.detection.COCOeval": _coco_eval,
    "striate.metrics.detection.MeanAveragePrecision": _meter,
    "striate.explain.Explainer": lambda m: _explainer(m)[0].scores(_explainer(m)[1]),
    "striate.explain.compute": lambda m: _function("striate.explain", "compute")(*_explainer(m), 0),
    "striate.explain.filters": lambda m: _function("striate.explain", "filters")(_load(m).network),
    "striate.explain.feature_maps": lambda m: _load(m).feature_maps(m.image, "conv1"),
    "striate.explain.explain": lambda m: [_load(m).explain(m.image), _load(m).explain(_pixels(), "rise")],
    "striate.models.build": lambda m: _function("striate.models", "build")("lenet", num_classes=2),
    "striate.models.describe": lambda m: _function("striate.models", "describe")("lenet"),
    "striate.weights.find": lambda m: _function("striate.weights", "find")("resnet18"),
    "striate.weights.default": lambda m: _function("striate.weights", "default")("resnet18"),
    "striate.weights.import_weights": lambda m: _function("striate.weights", "import_weights")(m.pth, m.out),
    "striate.weights.open_weights": lambda m: _function("striate.weights", "open_weights")(m.pth, "lenet"),
    "striate.bundle.inspect": lambda m: _function("striate.bundle", "inspect")(m.model),
    "striate.bundle.describe": lambda m: _function("striate.bundle", "describe")(m.model),
    "striate.bundle.read": lambda m: _function("striate.bundle", "read")(m.model),
    "striate.bundle.write": lambda m: _function("striate.bundle", "write")(
        m.out, _load(m).network, _load(m).description
    ),
    **{
        f"striate.transforms.{name}": lambda m, name=name, arguments=arguments: _transform(name, *arguments)
        for name, arguments in {
            "AutoAugment": (), "CenterCrop": (8,), "ColorJitter": (0.5,), "GaussianBlur": (3,),
            "Grayscale": (),
            "RandAugment": (), "RandomAffine": (10,), "RandomCrop": (8,), "RandomErasing": (),
            "RandomGrayscale": (), "RandomHorizontalFlip": (), "RandomResizedCrop": (8,),
            "RandomRotation": (10,), "RandomVerticalFlip": (), "Resize": (8,), "ToTensor": (),
            "TrivialAugmentWide": (),
        }.items()
    },
    "striate.transforms.Normalize": lambda m: _function("striate.transforms", "Normalize")(
        (0.5,) * 3, (0.5,) * 3
    )(_tensor().float()),
    "striate.transforms.Compose": lambda m: _function("striate.transforms", "Compose")(
        [_function("striate.transforms", "Resize")(8)]
    )(_tensor()),
    "striate.transforms.CutMix": lambda m: _mixed("CutMix"),
    "striate.transforms.MixUp": lambda m: _mixed("MixUp"),
}  # fmt: skip


def _grouped() -> dict:
    """The functions of each package, which one child calls; those that train alone."""
    groups: dict = {}
    for name, function in _FUNCTIONS.items():
        package, _, short = name.rpartition(".")
        alone = short in ("train", "train_seq2seq", "tune")
        groups.setdefault(name if alone else package, {})[short] = function
    return groups


FUNCTIONS = _grouped()  # group -> name -> function
PACKAGES = (
    "striate", "striate.anatomy", "striate.data", "striate.explain", "striate.metrics.detection",
    "striate.transforms", "striate.weights",
)  # fmt: skip
# Public names that do nothing by themselves: records, tables, interfaces and packages.
PASSIVE = {
    "striate": {
        "CheckReport", "Evaluation", "Prediction", "Run", "__version__", "anatomy", "data", "explain",
        "metrics", "models", "transforms",
    },
    "striate.anatomy": {"Anatomy", "Layer"},
    "striate.data": {"DataSet", "Images", "InMemoryImages", "Problem", "Samples", "SplitPlan"},
    "striate.explain": {"METHODS", "Explanation", "Faithfulness", "Method", "Randomization"},
    "striate.metrics.detection": {
        "CocoResult", "CocoSettings", "Detections", "EVALUATORS", "Federated", "GroundTruth", "LvisResult",
        "MatchRecord", "STYLES", "VocResult", "VocSettings",
    },
    "striate.transforms": set(),
    "striate.weights": {"CATALOG"},
}  # fmt: skip
