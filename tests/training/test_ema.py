"""The moving average of the weights as a formula, and checkpoint averaging."""

import pytest
import torch
from torch import nn

from striate.training.ema import (
    average_checkpoints,
    keep_epoch,
    kept_epochs,
    moving_average,
    remove_kept_epochs,
)


def test_the_moving_average_equals_the_formula():
    network = nn.BatchNorm1d(1)
    average = moving_average(network, 0.5)
    values = [1.0, 3.0, -2.0, 5.0, 8.0]
    expected = None
    for t, value in enumerate(values):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(-value)
            network.num_batches_tracked.fill_(t)
        average.update_parameters(network)
        kept = min(0.5, (1 + t) / (10 + t))
        expected = value if expected is None else kept * expected + (1 - kept) * value
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_mean.item() == pytest.approx(-expected)
    assert average.module.num_batches_tracked.item() == 4


def test_a_checkpoint_average_is_the_mean_of_the_last_epochs(tmp_path):
    """In double precision; counters are those of the last epoch."""
    network = nn.BatchNorm1d(3)
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for epoch, value in enumerate(values, 1):
        with torch.no_grad():
            network.weight.copy_(value)
            network.num_batches_tracked.fill_(epoch)
        keep_epoch(tmp_path, epoch, network, 3)
    assert [path.name for path in kept_epochs(tmp_path)] == [f"00000{i}.safetensors" for i in (3, 4, 5)]
    averaged = average_checkpoints(kept_epochs(tmp_path))
    assert torch.equal(averaged["weight"], values[2:].double().mean(0).float())
    assert averaged["num_batches_tracked"] == 5
    assert averaged["num_batches_tracked"].dtype == torch.int64
    remove_kept_epochs(tmp_path)
    assert not list(tmp_path.iterdir())
