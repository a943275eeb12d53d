"""A network with prepacked weights gives the same results, and leaves the original alone."""

import torch

from striate.kernels.decoding import IncrementalDecoder
from striate.kernels.prepacking import prepack
from striate.models.seq2seq import TextToText


def difference(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def test_a_prepacked_translator_writes_as_before():
    """All at once and step by step, with beams; the network's own weights stay as they are."""
    torch.manual_seed(0)
    network = TextToText(20, 18, width=32, depth=2, heads=2, hidden=64).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    packed = prepack(network)
    assert packed is not network
    source = torch.randint(4, 20, (5, 9))
    source[1, 4:] = 0
    tokens = torch.randint(4, 18, (5, 3, 6))
    with torch.inference_mode():
        memories = [net.encode(source) for net in (network, packed)]
        mask = memories[0][1]
        assert difference(memories[1][0][mask], memories[0][0][mask]) < 1e-5
        assert difference(packed(source, tokens[:, 0]), network(source, tokens[:, 0])) < 1e-5
        ours, theirs = (IncrementalDecoder(net.decoder, *memories[0], beams=3) for net in (packed, network))
        for step in tokens.unbind(2):
            assert difference(ours.step(step), theirs.step(step)) < 1e-5
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_network_that_onednn_does_not_support_is_returned_itself():
    network = TextToText(9, 9, width=8, depth=1, heads=2, hidden=8).double()
    assert prepack(network) is network
