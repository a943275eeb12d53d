"""What an explanation of a network must leave as it was."""

import torch


def state_of(network):
    """Weights, gradients, modes, attributes and hooks."""
    return {
        "values": {name: value.clone() for name, value in network.state_dict().items()},
        "identities": [id(value) for value in network.parameters()],
        "requires_grad": [value.requires_grad for value in network.parameters()],
        "gradients": [value.grad for value in network.parameters()],
        "modes": [part.training for part in network.modules()],
        "attributes": [sorted(vars(part)) for part in network.modules()],
        "hooks": [
            len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks)
            for part in network.modules()
        ],
    }


def require_unchanged(network, before):
    """Compare a network with its earlier state."""
    after = state_of(network)
    for name, value in before.pop("values").items():
        assert torch.equal(value, after["values"][name]), name
    after.pop("values")
    assert after == before
