"""Three networks as users write them: a module, a class that can be imported, and a local class."""

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Blocks in a list, functional activations, and a constant that is not saved."""

    def __init__(self, num_classes: int = 1000, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(width, num_classes)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, width), persistent=False)

    def forward(self, x):
        """Scores `[batch, num_classes]`."""
        x = F.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = x + F.relu(block(x))
        return self.out(self.drop(x.mean((2, 3)) * self.scale))


class Attention(nn.Module):
    """Patches, a learned position, torch's attention, and a convolution as the classifier."""

    def __init__(self, n_classes: int, in_chans: int = 3, img_size: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_chans, 24, 8, stride=8)
        self.position = nn.Parameter(torch.zeros(1, (img_size // 8) ** 2, 24))
        self.layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True, norm_first=True)
        self.classify = nn.Conv2d(24, n_classes, 1)

    def forward(self, x):
        """Scores `[batch, n_classes]`."""
        x = self.patches(x)
        batch, width, height, columns = x.shape
        x = self.layer(x.flatten(2).transpose(1, 2) + self.position)
        x = self.classify(x.transpose(1, 2).reshape(batch, width, height, columns))
        return x.mean((2, 3))


def recurrent(num_classes):
    """A local class: rows of the image, read by a GRU, with a loop over a list of weights that are shared."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 5, stride=4)
            self.gru = nn.GRU(60, 32, batch_first=True)
            self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, num_classes))

        def forward(self, x):
            x = self.conv(x)
            if x.shape[-1] != 15:  # a decision that the tracer cannot take
                raise ValueError("images of 64 px only")
            out, _ = self.gru(x.permute(0, 2, 1, 3).flatten(2))
            return self.head(out[:, -1])

    return Rows()
