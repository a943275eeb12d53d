"""Classify image files with torchvision or timm, as their examples do, for bench_onnx.py.

    PYTHON peer_predict.py torchvision|timm NETWORK WEIGHTS BATCH FILE...

Pillow, the transforms of the library, and a DataLoader whose processes decode, unless there is one file. The
weights are a state dict. Prints the most probable class of each file.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from PIL import Image


def main() -> None:
    library, name, weights, batch, *files = sys.argv[1:]
    network, transform = opened(library, name)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    with torch.inference_mode():
        if len(files) == 1:
            image = transform(Image.open(files[0]).convert("RGB"))
            print(network(image[None]).softmax(1).argmax(1).tolist())
            return
        loader = torch.utils.data.DataLoader(Files(files, transform), int(batch), num_workers=2)
        print([best for images in loader for best in network(images).softmax(1).argmax(1).tolist()])


def opened(library: str, name: str) -> tuple[Any, Any]:
    """A network with random weights, and its transform for evaluation."""
    if library == "timm":
        import timm  # type: ignore[import-not-found]

        network = timm.create_model(name)
        return network, timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    import torchvision  # type: ignore[import-not-found]
    from torchvision import transforms

    transform = transforms.Compose([
        transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    return getattr(torchvision.models, name)(), transform


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """The input of the network for each file."""

    def __init__(self, files: list[str], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(Image.open(self.files[i]).convert("RGB"))
        return image


if __name__ == "__main__":
    main()
