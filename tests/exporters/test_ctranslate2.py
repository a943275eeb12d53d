"""CTranslate2 models give the same translations as the network."""

import pytest
import torch

from striate.errors import UsageError, WriteError
from striate.exporters.ctranslate2 import CTranslate2Engine, export
from striate.exporters.records import Exported
from striate.exporters.text_verification import Sources, compare_texts
from striate.models.seq2seq import TextToText

pytest.importorskip("ctranslate2")
SOURCE, TARGET = [f"s{i}" for i in range(40)], [f"t{i}" for i in range(30)]


@pytest.fixture(autouse=True)
def threads():
    """CTranslate2 changes those of torch."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def compare(network, folder, sources, limit):
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in sources], batch_first=True)
    engine = Exported(texts=CTranslate2Engine(folder, network.pad))
    return compare_texts(network, engine, Sources(rows, None, limit), folder)


@pytest.mark.parametrize(
    "arguments", [{}, {"positions": "none", "tied": "none"}, {"positions": "learned", "max_length": 30}]
)
def test_the_exported_model_is_the_network(arguments, tmp_path):
    torch.manual_seed(0)
    network = TextToText(40, 30, width=32, depth=2, heads=4, hidden=64, **arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
            if parameter.ndim == 1:  # biases that are not zero, gains that are not one
                parameter.add_(0.1 * torch.randn_like(parameter))
    export(network, tmp_path / "model", SOURCE, TARGET)
    sources = [torch.randint(4, 40, (length,)).tolist() for length in (1, 2, 5, 9, 14, 14, 7, 3)]
    parity = compare(network, tmp_path / "model", sources, 20)
    assert (parity.n, parity.equal) == (8, 8)
    assert parity.max_difference < 1e-4
    with torch.no_grad():
        network.encoder.ln.weight[3] += 1
    with pytest.raises(WriteError, match="its tokens differ by"):
        compare(network, tmp_path / "model", sources, 20)


def test_special_tokens_are_never_generated(tmp_path):
    """By a beam search with CTranslate2's default options, which would allow them."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    torch.manual_seed(0)
    network = TextToText(40, 30, width=32, depth=1, heads=4, hidden=64).eval()
    with torch.no_grad():
        network.decoder.output.bias[[0, 1, 3]] = 50.0  # padding, BEGIN, UNKNOWN
    export(network, tmp_path / "model", SOURCE, TARGET)
    assert compare(network, tmp_path / "model", [[7, 8], [9]], 12).equal == 2
    translator = ctranslate2.Translator(str(tmp_path / "model"), device="cpu")
    (result,) = translator.translate_batch([SOURCE[5:9]], beam_size=5, num_hypotheses=5)
    assert not {"t0", "t1", "t3"} & {token for text in result.hypotheses for token in text}


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_torch_keeps_its_threads(workers, tmp_path):
    export(TextToText(40, 30, width=8, depth=1, heads=2, hidden=8), tmp_path / "model", SOURCE, TARGET)
    torch.set_num_threads(3)
    engine = CTranslate2Engine(tmp_path / "model", 0, workers=workers)
    assert torch.get_num_threads() == 3
    assert len(list(engine.greedy([[5, 6], [7]], 4))) == 2
    assert torch.get_num_threads() == 3


def test_an_export_that_cannot_be_is_refused(tmp_path):
    network = TextToText(40, 30, width=8, depth=1, heads=2, hidden=8)
    with pytest.raises(UsageError, match="29 different strings for 30 tokens"):
        export(network, tmp_path / "model", SOURCE, ["t1", *TARGET[1:]])
    (tmp_path / "model").mkdir()
    with pytest.raises(WriteError, match="it exists"):
        export(network, tmp_path / "model", SOURCE, TARGET)
