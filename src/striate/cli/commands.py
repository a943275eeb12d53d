"""The table of commands."""

from __future__ import annotations

from dataclasses import dataclass

SUMMARY = "Striate: from a folder of images to an evaluated model in one file, with a report."


@dataclass(frozen=True)
class Command:
    """One command: its function as `file:function`, and its line in the list of commands."""

    target: str
    summary: str


# In the order of the help. A group is a dict of commands; its line is in GROUPS.
COMMANDS: dict[str, Command | dict[str, Command]] = {
    "demo": Command(
        "demo:demo", "Train a network on digits or photographs and evaluate it, in about a minute."
    ),
    "train": Command("train:train", "Train an image classifier, evaluate it and write a report."),
    "resume": Command("resume:resume", "Resume a run that was stopped or killed."),
    "tune": Command("tune:tune", "Search for learning rate, weight decay, augmentation and trained layers."),
    "recipes": Command("recipes:recipes", "Show training recipes with their cost and published results."),
    "evaluate": Command("evaluate:evaluate", "Evaluate a model on labeled data."),
    "calibrate": Command("calibrate:calibrate", "Calibrate a classifier's probabilities on labeled images."),
    "compare": Command("compare:compare", "Compare models on the same images, or rank runs."),
    "predict": Command("predict:predict", "Classify images, or recognize the text in them."),
    "embed": Command("embed:embed", "Write the features of images, with their paths and labels."),
    "explain": Command("explain:explain", "Show which parts of an image speak for a class, and test that."),
    "explore": {
        "filters": Command("explore:filters", "Draw the filters of a convolution."),
        "maps": Command("explore:maps", "Draw the feature maps of a layer for an image."),
        "channel": Command("explore:channel", "Find the images that activate a channel most."),
        "nearest": Command("explore:nearest", "Find the training images most similar to an image."),
        "prototypes": Command("explore:prototypes", "Find prototypes and criticisms of each class."),
    },
    "export": Command(
        "export:export", "Export a model to another format (ONNX, CTranslate2, torch.export, state dict)."
    ),
    "view": Command("view:view", "Show all runs of a folder side by side in the browser, live."),
    "check": Command("check:check", "Find broken files, duplicates, leakage, bad class names, outliers."),
    "detection": Command("detection:detection", "Evaluate an object detector: COCO and Pascal VOC metrics."),
    "seq2seq": {
        "train": Command("seq2seq:train", "Train a Transformer on pairs of texts, or of images and text."),
        "evaluate": Command("seq2seq:evaluate", "Compute BLEU, chrF, character and word error rates."),
        "translate": Command("translate:translate", "Translate texts, or recognize text in images."),
    },
    "anatomy": Command(
        "anatomy:anatomy", "Show output size, receptive field, parameters and MACs of each layer."
    ),
    "weights": {
        "list": Command("weights:list_", "List the published ImageNet weights."),
        "get": Command("weights:get", "Download published weights into torch's cache."),
        "import": Command("weights:import_", "Convert other libraries' weights to a bundle (model file)."),
        "inspect": Command("weights:inspect", "Show the contents of a bundle (model file)."),
    },
    "doctor": Command("doctor:doctor", "Show versions, devices and the image cache; clear the cache."),
}
GROUPS = {
    "explore": "See what a classifier has learned: filters, feature maps, similar images, prototypes.",
    "seq2seq": "Sequence to sequence: translate text, or recognize text in images.",
    "weights": "List, download, import and inspect weights.",
}
