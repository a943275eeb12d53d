"""What explanations cost and what they are worth; compared with torchcam and captum if they are installed.

    python benchmarks/bench_explain.py cost --out benchmarks/results
    python benchmarks/bench_explain.py cost --models resnet18,googlenet --rounds 7
    python benchmarks/bench_explain.py onnx --out benchmarks/results
    python benchmarks/bench_explain.py worth MODEL PHOTOS BACKGROUNDS --count 100 --out benchmarks/results

`cost`: CPU seconds with one thread for one image, the shortest of rounds in which all candidates take turns:
the folded network (`predict`), Grad-CAM's map and the scores of the same pass (`Explainer.forward`), the
network with torchcam's GradCAM on the same layer. Ratios are medians of the rounds' own. Also the largest
difference of the maps to torchcam's and captum's, and the cost of the other methods. Random weights.

`onnx`: CPU seconds of the exported file with and without the output for maps, with one thread for one image,
and the largest difference of these maps to torch's. Random weights.

`worth`: MODEL is a bundle of a classifier of ImageNet; PHOTOS a folder of photographs whose names start with
the WordNet id, BACKGROUNDS another one. Each photograph is scaled to 96 px and pasted into a corner of a
background of 224 px. The pointing game (Zhang et al. 2018) counts the maps whose maximum is inside, for the
photograph's own class; `energy` is the share of the map inside. Then the verdicts for the maps of the
photographs themselves and for shuffled copies, and the rank correlation with the maps of networks with random
weights.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image
from record import write_results
from torch import Tensor, nn

from striate import models
from striate.explain import METHODS, Explainer, cam, compute
from striate.explain.faithfulness import measure, resized
from striate.explain.randomization import randomized, rank_correlation
from striate.exporters.onnx import graph
from striate.exporters.onnx.file import encode
from striate.inference.classifier import Classifier, load
from striate.inference.onnx_classifier import SCORES
from striate.kernels.folding import fold
from striate.transforms.decode import Uint8Array
from striate.transforms.preprocess import Preprocess

# The module whose output the peers explain: the one that returns the maps that Striate finds.
LAYERS = {
    "resnet18": "layer4", "resnet50": "layer4", "resnet20": "layer3", "googlenet": "inception5b",
    "mobilenet_v3_small": "features", "mobilenet_v3_large": "features", "efficientnet_lite0": "features",
    "vgg11": "features.19", "alexnet": "features.11",
}  # fmt: skip
SIDE, PASTED = 224, 96
ONNX_MODELS = "resnet18,resnet50,googlenet,efficientnet_lite0,resnet20"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("cost")
    cost.add_argument("--models", default=",".join(LAYERS), help="names, with commas between them")
    cost.add_argument("--rounds", type=int, default=11)
    cost.add_argument("--methods", action="store_true", help="also the other methods, of the first network")
    worth = commands.add_parser("worth")
    worth.add_argument("model")
    worth.add_argument("photos", type=Path)
    worth.add_argument("backgrounds", type=Path)
    worth.add_argument("--count", type=int, default=100, help="photographs")
    worth.add_argument("--random", type=int, default=50, help="photographs of the randomization test")
    exported = commands.add_parser("onnx")
    exported.add_argument("--models", default=ONNX_MODELS, help="names, with commas between them")
    exported.add_argument("--rounds", type=int, default=51)
    for command in (cost, worth, exported):
        command.add_argument("--out", type=Path, help="folder for a results file")
    return parser.parse_args()


def random_network(name: str, shape: tuple[int, int, int]) -> nn.Module:
    """A network with random weights, whose norms have the statistics of noise."""
    torch.manual_seed(0)
    network = models.build(name)
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.02)
    with torch.no_grad():
        network(torch.randn(4, *shape))
    return network.eval()


def cpu_seconds(candidates: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """The CPU times of each candidate, round by round; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            run()  # loads its weights into the processor's caches
            started = time.process_time()
            run()
            times[name].append(time.process_time() - started)
    return times


def shortest(times: dict[str, list[float]]) -> dict[str, float]:
    """In milliseconds. Other programs can only lengthen a time."""
    return {key: round(1e3 * min(values), 2) for key, values in times.items()}


def ratio(times: dict[str, list[float]], a: str, b: str) -> float:
    """The median of the rounds' ratios: what slows a round down slows both."""
    return statistics.median(one / other for one, other in zip(times[a], times[b], strict=True))


def cost(name: str, rounds: int, with_methods: bool) -> dict[str, Any]:
    """One network."""
    row = models.MODELS[name]
    shape = (row.channels, row.input_size, row.input_size)
    network, image = random_network(name, shape), torch.randn(1, *shape)
    folded, explainer = fold(network, shape), Explainer(network, shape, folded=True)
    target = int(explainer.scores(image).argmax())

    def predict() -> Tensor:
        with torch.inference_mode():
            probabilities: Tensor = folded(image).softmax(dim=1)
            return probabilities

    def explained() -> tuple[Tensor, Tensor]:
        forward = explainer.forward(image)
        return cam.grad_cam(forward, [target]), forward.scores.softmax(dim=1)

    candidates: dict[str, Callable[[], Any]] = {"predict": predict, "grad-cam": explained}
    peers = peers_of(network, name, image, target)
    candidates |= {key: run for key, run in peers.items() if key == "torchcam"}
    times = cpu_seconds(candidates, rounds)
    answer: dict[str, Any] = {
        "model": name, "input": list(shape), "layer": explainer.location.layer,
        "cpu_ms": shortest(times), "ratio_to_predict": round(ratio(times, "grad-cam", "predict"), 3),
    }  # fmt: skip
    if "torchcam" in times:
        answer["torchcam_to_striate"] = round(ratio(times, "torchcam", "grad-cam"), 2)
    # Compared on the network itself: folding rounds differently, and random weights amplify that.
    mine = compute(Explainer(network, shape), image, target)
    answer["difference"] = {key: difference(mine, run()) for key, run in peers.items()}
    if with_methods:
        answer["methods_cpu_s"] = {}
        for key, method in METHODS.items():
            if method.networks != "attention" or hasattr(network, "class_token"):
                explain = functools.partial(compute, explainer, image, target, key)
                explain()
                started = time.process_time()
                explain()
                answer["methods_cpu_s"][key] = round(time.process_time() - started, 3)
    return answer


def peers_of(network: nn.Module, name: str, image: Tensor, target: int) -> dict[str, Callable[[], Tensor]]:
    """The same map by torchcam and captum, if they are installed and the layer is a module."""
    found: dict[str, Callable[[], Tensor]] = {}
    if name not in LAYERS:
        return found
    layer = network.get_submodule(LAYERS[name])
    try:
        from torchcam.methods import GradCAM

        def by_torchcam() -> Tensor:
            with GradCAM(network, layer) as extractor:
                scores = network(image)
                (values,) = extractor(target, scores, normalized=False)
            found: Tensor = values[0].detach().relu()
            return found

        found["torchcam"] = by_torchcam
    except ImportError:
        pass
    try:
        from captum.attr import LayerGradCam

        captum = LayerGradCam(network, layer)
        found["captum"] = lambda: captum.attribute(image, target)[0, 0].detach().relu()
    except ImportError:
        pass
    return found


def onnx(name: str, rounds: int) -> dict[str, Any]:
    """The exported file of one network with and without the output for maps, for one image on one thread."""
    row = models.MODELS[name]
    preprocess = Preprocess.for_size(row.input_size, row.channels)
    shape = (row.channels, row.input_size, row.input_size)
    network = random_network(name, shape)
    made = graph(network, preprocess)
    last = next(place for place, node in enumerate(made.nodes) if node.outputs == (SCORES,))
    plain = dataclasses.replace(made, nodes=made.nodes[: last + 1], outputs=made.outputs[:1])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with_maps, without = (
        onnxruntime.InferenceSession(b"".join(encode(one, ("benchmark", "1"), {})), options)
        for one in (made, plain)
    )
    size = (1, row.input_size, row.input_size, row.channels)
    pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    times = cpu_seconds(
        {
            "without": lambda: without.run(None, {"images": pixels}),
            "with": lambda: with_maps.run(None, {"images": pixels}),
        },
        rounds,
    )
    scores, maps = with_maps.run(None, {"images": pixels})
    image = preprocess.normalize(torch.from_numpy(pixels))
    expected = compute(Explainer(network, shape), image, int(scores[0].argmax()))
    return {
        "model": name, "input": list(shape),
        "cpu_ms": shortest(times), "ratio": round(ratio(times, "with", "without"), 3),
        "difference_to_torch": difference(torch.from_numpy(maps[0]), expected),
    }  # fmt: skip


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a fraction of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def worth(args: argparse.Namespace) -> dict[str, Any]:
    classifier = load(args.model, "cpu")
    photos = [(path, class_of(path, classifier)) for path in sorted(args.photos.glob("n*_*"))]
    photos = [(path, target) for path, target in photos if target is not None]
    backgrounds = sorted(path for path in args.backgrounds.rglob("*") if path.suffix.lower() == ".jpg")
    order = np.random.default_rng(0).permutation(len(photos))[: args.count]
    chosen = [photos[i] for i in order]
    return {
        "model": classifier.description.architecture,
        "photographs": len(chosen),
        "pointing": pointing(classifier, chosen, backgrounds),
        "verdicts": verdicts(classifier, chosen),
        "randomization": randomization(classifier, chosen[: args.random]),
    }


def class_of(path: Path, classifier: Classifier) -> int | None:
    """The class that the name says after the WordNet id, such as n01530575_brambling; None if unknown."""
    name = path.stem.split("_", 1)[1].replace("_", " ")
    names = [known.lower() for known in classifier.classes]
    return names.index(name.lower()) if names.count(name.lower()) == 1 else None


def square(path: Path, side: int) -> Uint8Array:
    """The center of a photograph as RGB `[side, side, 3]`."""
    with Image.open(path) as image:
        shorter = min(image.size)
        left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
        part = image.convert("RGB").crop((left, top, left + shorter, top + shorter))
        return np.array(part.resize((side, side), Image.Resampling.BICUBIC))


def prepared(classifier: Classifier, pixels: Uint8Array) -> Tensor:
    return classifier.preprocess.normalize(torch.from_numpy(pixels[None].copy()))


def explainer_of(classifier: Classifier) -> Explainer:
    return Explainer(classifier.network, (3, SIDE, SIDE), folded=True)


def grad_cam_plus_plus(explainer: Explainer, image: Tensor, target: int, fine: bool) -> Tensor:
    """Chattopadhyay et al. 2018, arXiv:1710.11063, equations 5, 14 and 19."""
    forward = explainer.forward(image, fine=fine)
    maps, gradients = forward.maps, forward.gradients([{target: 1.0}])
    squares = gradients.square()
    divisor = 2 * squares + maps.sum(dim=(2, 3), keepdim=True) * squares * gradients
    alpha = torch.where(divisor != 0, squares / torch.where(divisor != 0, divisor, 1), 0)
    weights = (alpha * gradients.relu()).sum(dim=(2, 3), keepdim=True)
    return (weights * maps).sum(dim=1).relu()[0]


def pointing(classifier: Classifier, photos: list[Any], backgrounds: list[Path]) -> dict[str, Any]:
    """Pointing game and energy of each fast method, of Grad-CAM++, and of a blob in the center."""
    explainer, rng = explainer_of(classifier), np.random.default_rng(1)
    names = ("grad-cam", "layer-cam", "finer-cam", "grad-cam++", "grad-cam++ fine")
    hits, energy = collections.Counter[str](), collections.defaultdict[str, list[float]](list)
    centre, recognized = 0, 0
    for path, target in photos:
        canvas = square(backgrounds[rng.integers(len(backgrounds))], SIDE)
        top, left = ((SIDE - PASTED) * int(bit) for bit in rng.integers(0, 2, 2))
        inside = (slice(top, top + PASTED), slice(left, left + PASTED))
        canvas[inside] = square(path, PASTED)
        image = prepared(classifier, canvas)
        recognized += int(explainer.scores(image).argmax()) == target
        found = {name: compute(explainer, image, target, name) for name in names[:3]}
        for name, fine in (("grad-cam++", False), ("grad-cam++ fine", True)):
            found[name] = grad_cam_plus_plus(explainer, image, target, fine)
        for name, values in found.items():
            heat = resized(values, (SIDE, SIDE))
            row, column = divmod(int(heat.argmax()), SIDE)
            hits[name] += top <= row < top + PASTED and left <= column < left + PASTED
            energy[name].append(float(heat[inside].sum() / heat.sum().clamp(min=1e-9)))
        centre += top <= SIDE // 2 < top + PASTED and left <= SIDE // 2 < left + PASTED
    count = len(photos)
    return {
        "recognized": recognized,
        "hits": {**{name: hits[name] / count for name in names}, "centre blob": centre / count},
        "energy": {name: round(statistics.mean(energy[name]), 3) for name in names},
    }


def verdicts(classifier: Classifier, photos: list[Any]) -> dict[str, Any]:
    """Outcomes of the deletion and insertion test, for Grad-CAM of the predicted class and shuffled maps."""
    explainer = explainer_of(classifier)
    counts: dict[str, collections.Counter[str]] = {
        "grad-cam": collections.Counter(), "shuffled": collections.Counter()
    }  # fmt: skip
    for number, (path, _) in enumerate(photos):
        image = prepared(classifier, square(path, SIDE))
        target = int(explainer.scores(image).argmax())
        values = compute(explainer, image, target)
        order = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(1000 + number))
        probability = lambda batch, t=target: explainer.probabilities(batch)[:, t]
        shuffled = values.flatten()[order].view_as(values)
        for name, tested in (("grad-cam", values), ("shuffled", shuffled)):
            counts[name][measure(probability, image, tested).outcome] += 1
    return {name: dict(count) for name, count in counts.items()}


def randomization(classifier: Classifier, photos: list[Any]) -> dict[str, Any]:
    """Mean rank correlation with the map of a network with random weights, of each fast method."""
    explainer = explainer_of(classifier)
    names = ("grad-cam", "layer-cam", "finer-cam", "smoothgrad", "integrated-gradients")
    found = collections.defaultdict[str, list[float]](list)
    for number, (path, _) in enumerate(photos):
        image = prepared(classifier, square(path, SIDE))
        target = int(explainer.scores(image).argmax())
        other = Explainer(randomized(classifier.network, image, number), (3, SIDE, SIDE))
        for name in names:
            samples = 4 if METHODS[name].samples else None
            both = (compute(each, image, target, name, samples=samples) for each in (explainer, other))
            found[name].append(rank_correlation(*both))
    return {
        "images": len(photos),
        "mean": {name: round(statistics.mean(values), 3) for name, values in found.items()},
        "mean_magnitude": {
            name: round(statistics.mean(map(abs, values)), 3) for name, values in found.items()
        },
    }


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    if args.command == "onnx":
        record: dict[str, Any] = {"rows": [onnx(name, args.rounds) for name in args.models.split(",")]}
        print(json.dumps(record, indent=2))
    elif args.command == "cost":
        rows = []
        for number, name in enumerate(args.models.split(",")):
            rows.append(cost(name, args.rounds, args.methods and number == 0))
            print(json.dumps(rows[-1]), flush=True)
        record = {"rows": rows}
    else:
        record = worth(args)
        print(json.dumps(record, indent=2))
    if args.out:
        peers = {name: version(name) for name in ("torch", "torchcam", "captum", "onnxruntime")}
        write_results({"versions": peers, **record}, args.out, f"explain-{args.command}", cpus=1)


if __name__ == "__main__":
    main()
