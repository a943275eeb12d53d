"""Networks of timm, torchvision and users: train, resume bit for bit, evaluate, predict, anatomy.

`make test-peers` runs these in an environment that has timm and torchvision, and keeps their results.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("timm", reason="timm is not installed: make test-peers")
pytest.importorskip("torchvision", reason="torchvision is not installed: make test-peers")

sys.path.insert(0, str(Path(__file__).parent))

import hand_written
from conftest import crash_after

import striate
from striate import anatomy, bundle

pytestmark = pytest.mark.slow

LABELS = np.arange(20) % 2
NOISE = np.random.default_rng(0).integers(0, 150, (20, 64, 64, 3))
IMAGES = (NOISE + 100 * LABELS[:, None, None, None]).astype(np.uint8)
DATA = (IMAGES, LABELS)

NETWORKS = {
    "timm": [
        "resnet10t", "convnext_atto", "mobilenetv3_small_050", "efficientnet_lite0", "vit_tiny_patch16_224",
        "ghostnet_050", "regnetx_002", "repvgg_a0", "mobilevit_xxs", "edgenext_xx_small",
    ],
    "torchvision": ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "efficientnet_b0", "googlenet"],
}  # fmt: skip
ONE = hand_written.Residual(7)
CASES = {
    **{
        f"{library}:{name}": (f"{library}:{name}", {})
        for library, names in NETWORKS.items()
        for name in names
    },
    "a module": (ONE, {"network": ONE}),
    "a class": (hand_written.Attention, {"trust": "hand_written"}),
    "a local class": (lambda n: hand_written.recurrent(n), {"network": hand_written.recurrent}),
}
FRESH = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import striate, torch, hand_written
torch.set_num_threads(1)
path, images, allowed = sys.argv[2:5]
given = {"trust": {"trust": "hand_written"}, "module": {"network": hand_written.Residual(7)},
         "local": {"network": hand_written.recurrent}, "": {}}[allowed]
model = striate.load(path, "cpu", **given)
print(json.dumps([model.predict(image).probabilities.tolist() for image in np.load(images)]))
"""
ALLOWED = {"a module": "module", "a class": "trust", "a local class": "local"}


@pytest.fixture(scope="module")
def record():
    """Rows of the results file, written at the end."""
    rows = {}
    yield rows
    if path := os.environ.get("STRIATE_PEERS"):
        Path(path).write_text(json.dumps(rows, indent=2) + "\n")


@pytest.mark.parametrize("case", CASES)
def test_everything_works(case, tmp_path, record):
    model, allowed = CASES[case]
    started = time.process_time()
    size = 32 if "vit" in case else 64
    options = {"epochs": 2, "batch": 4, "imgsz": size, "ema": 0.9, "save_every": 1, "out": str(tmp_path)}
    whole = striate.train(DATA, model=model, name="whole", **options)
    with crash_after(3):
        striate.train(DATA, model=model, name="stopped", **options)
    resumed = striate.resume(tmp_path / "stopped", data=DATA, **allowed)
    for bundles in ("best", "last"):
        digests = [bundle.inspect(getattr(run.training, bundles)).weights_sha256 for run in (whole, resumed)]
        assert digests[0] == digests[1], "resumed bit for bit"

    classifier = striate.load(whole.best, "cpu", **allowed)
    evaluation = striate.evaluate(classifier, DATA, split="all")
    found = [classifier.predict(image).probabilities for image in IMAGES[:3]]
    with torch.inference_mode():
        pixels = np.stack([classifier.preprocess.fit(image) for image in IMAGES[:3]])
        plain = (
            classifier.network(classifier.preprocess.normalize(torch.from_numpy(pixels))).softmax(1).numpy()
        )
    assert np.abs(np.stack(found) - plain).max() < 1e-4, "folding changes nothing"

    rows = anatomy.trace(classifier.network, size=size)
    assert rows.params == sum(p.numel() for p in classifier.network.parameters())
    assert rows.macs > 0

    np.save(tmp_path / "images.npy", IMAGES[:3])
    command = [sys.executable, "-c", FRESH, str(Path(__file__).parent), str(whole.best)]
    command += [str(tmp_path / "images.npy"), ALLOWED.get(case, "")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), found, atol=1e-6)

    head = striate.train(
        DATA, model=model, weights=str(whole.best), transfer="head", name="head", classifier=None,
        **{**options, "epochs": 1},
    )  # fmt: skip
    cached = any("frozen layers ran once" in note for note in head.training.notes)
    before, after = bundle.read(whole.best)[1], bundle.read(head.best)[1]
    classifier_name = bundle.describe(head.best).arguments["classifier"]
    for name, tensor in before.items():
        assert name.startswith(f"{classifier_name}.") or torch.equal(after[name], tensor), (
            "frozen means frozen"
        )
    parity = striate.export(whole.best, tmp_path / "x.pth", "state-dict", **allowed)
    assert parity.equal == parity.n
    record[case] = {
        "parameters": rows.params, "macs": rows.macs, "classifier": classifier_name,
        "top1": evaluation.top1, "folded": classifier._folded is not classifier.network,
        "features cached": cached, "cpu_seconds": round(time.process_time() - started, 1),
    }  # fmt: skip
