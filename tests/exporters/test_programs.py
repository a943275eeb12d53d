"""Programs of torch.export give the same texts as the network, for any number of sources and tokens."""

import json

import pytest
import torch

from striate.errors import WriteError
from striate.exporters.programs import ProgramsEngine, export
from striate.exporters.records import Exported
from striate.exporters.text_verification import Sources, compare_texts
from striate.models.seq2seq import ImageToText, TextToText

SMALL = {"width": 16, "depth": 1, "heads": 2, "hidden": 32}


def enlarged(network):
    """Fresh weights give nearly the same score to every token; these do not."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.7)
    return network.eval()


def compare(network, folder, source, limit):
    engine = Exported(texts=ProgramsEngine(folder))
    return compare_texts(network, engine, Sources(source, None, limit), folder)


def test_a_translator_as_two_programs(tmp_path):
    torch.manual_seed(0)
    network = enlarged(TextToText(13, 11, **SMALL))
    with torch.no_grad():
        network.decoder.output.bias[[0, 1, 3]] = 50.0  # padding, BEGIN and UNKNOWN, which no text contains
    export(network, tmp_path / "programs", torch.randint(3, 13, (2, 4)), room=9)
    assert json.loads((tmp_path / "programs" / "cache.json").read_text()) == {
        "layers": 1,
        "heads": 2,
        "room": 9,
        "width": 8,
    }
    source = torch.randint(3, 13, (6, 7))
    source[1, 3:] = source[2, 1:] = 0
    parity = compare(network, tmp_path / "programs", source, 9)
    assert (parity.n, parity.equal) == (6, 6)
    assert parity.max_difference < 1e-5
    step = torch.export.load(tmp_path / "programs" / "step.pt2").module()
    keys, values, mask = torch.export.load(tmp_path / "programs" / "encoder.pt2").module()(source)
    cache = torch.zeros(1, 6, 2, 9, 8)
    logits, *_ = step(torch.ones(6, dtype=torch.int64), torch.tensor([0]), cache, cache, keys, values, mask)
    assert torch.isinf(logits).nonzero()[:, 1].unique().tolist() == [0, 1, 3]
    with torch.no_grad():
        network.decoder.output.bias += torch.linspace(9, -9, 11)  # another network
    with pytest.raises(WriteError, match=r"its tokens differ by \d\.\de"):
        compare(network, tmp_path / "programs", source, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["programs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "arguments"),
    [("columns", {}), ("patches", {}), ("resnet20", {"in_channels": 3, "input_size": (32, 32)})],
)
def test_a_reader_of_images_as_two_programs(encoder, arguments, tmp_path):
    torch.manual_seed(0)
    network = enlarged(ImageToText(11, encoder, **SMALL, **arguments))
    images = torch.randn(4, arguments.get("in_channels", 1), 32, 32)
    export(network, tmp_path / "programs", images[:2], room=6)
    parity = compare(network, tmp_path / "programs", images, 6)
    assert (parity.n, parity.equal) == (4, 4)
    assert parity.max_difference < 1e-5
