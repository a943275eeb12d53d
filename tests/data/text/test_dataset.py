import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from striate.data.images import decoded
from striate.data.text.dataset import PIXELS_PER_TOKEN, Seq2SeqDataset, max_target_length
from striate.data.text.lines import TextLineImages, collate_images
from striate.data.text.pairs import Pairs
from striate.data.text.tokens import BOS, EOS, PAD, train_tokenizer
from striate.transforms.preprocess import Preprocess

CPU = torch.device("cpu")
PREPROCESS = Preprocess.for_line(16, 64)


def pairs(*rows):
    sources, references = zip(*rows, strict=True)
    return Pairs(sources, references, tuple(f"a.tsv:{i}" for i in range(len(rows))))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1))
def test_no_answer_of_the_training_data_would_be_cut(lengths):
    ratio, most = max(t / s for s, t in lengths), max(t for _, t in lengths)
    for source, target in lengths:
        assert max_target_length(source, ratio, most) >= target
    assert max_target_length(10_000, ratio, most) <= max(8, 2 * most)


def test_a_batch_is_what_the_decoder_is_given_and_what_it_is_to_say():
    tokens = train_tokenizer(["abc"], "characters")
    a, b, c = tokens.encode("abc")
    examples = Seq2SeqDataset(pairs(("ab", ("c", "cc")), ("c", ("a",))), tokens, tokens)
    assert examples.pair_index.tolist() == [0, 0, 1]  # each reference is to be learnt
    assert examples.lengths.tolist() == [[3, 2], [3, 3], [2, 2]]
    batch = examples.batch(np.array([1, 2]), CPU)
    assert batch.source.tolist() == [[a, b, EOS], [c, EOS, PAD]]
    assert batch.decoder_input.tolist() == [[BOS, c, c], [BOS, a, EOS]]
    assert batch.target.tolist() == [[c, c, EOS], [a, EOS, PAD]]
    assert (batch.terms, batch.part(slice(1, 2)).terms) == (5, 2)
    assert len(Seq2SeqDataset(pairs(("ab", ("c", "cc"))), tokens, tokens, all_references=False)) == 1


@pytest.fixture
def files(tmp_path):
    """Images 32, 200 and 8 wide and 32 high, and one that is none."""
    paths = []
    for i, width in enumerate((32, 200, 8)):
        pixels = np.random.default_rng(i).integers(0, 256, (32, width), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    (tmp_path / "bad.png").write_bytes(b"no image")
    return [*paths, str(tmp_path / "bad.png")]


def test_lines_keep_their_proportions_up_to_the_widest(files):
    lines = TextLineImages(files, PREPROCESS)
    assert lines.widths.tolist() == [16, 64, 4, 0]  # half as high: half as wide, at most 64
    assert [problem.path for problem in lines.problems] == [files[3]]
    images = lines.read(np.array([2, 0]))
    assert [image.shape for image in images] == [(16, 4, 1), (16, 16, 1)]
    half = Image.open(files[0]).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(images[1][:, :, 0], np.asarray(half))
    pixels, widths = collate_images(images, PREPROCESS, CPU)
    assert pixels.shape == (2, 1, 16, 16)
    assert widths.tolist() == [4, 16]
    assert torch.equal(pixels[1], PREPROCESS.normalize(torch.from_numpy(images[1][None]))[0])


def test_images_beyond_the_memory_are_decoded_again(files, monkeypatch):
    kept = TextLineImages(files, PREPROCESS)
    monkeypatch.setattr("striate.data.text.lines.MAX_BYTES_IN_MEMORY", 0)
    again = TextLineImages(files, PREPROCESS)
    assert again._images == [None] * 4
    which = np.array([1, 0])
    for one, other in zip(kept.read(which), again.read(which), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("preprocess", [PREPROCESS, Preprocess.for_line(5, 3), Preprocess.for_size(32, 1)])
def test_a_second_run_reads_the_images_from_the_cache(files, preprocess, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "_CLOCK_NS", 0)  # the files of this test are new
    images = [TextLineImages(files, preprocess, cache=cache) for cache in (False, True)]
    monkeypatch.setattr(Preprocess, "read", lambda self, source, crop: pytest.fail(f"decoded {source}"))
    (tmp_path / "bad.png").unlink()
    images.append(TextLineImages(files[:3], preprocess))
    monkeypatch.setattr("striate.data.text.lines.MAX_BYTES_IN_MEMORY", 0)
    images.append(TextLineImages(files[:3], preprocess))
    for which in np.array([[0, 1, 2], [2, 0, 1]]):
        expected = [preprocess.fit(np.asarray(Image.open(files[i]))) for i in which]
        for one in images:
            assert all(map(np.array_equal, one.read(which), expected))
            assert one.widths[:3][which].tolist() == [image.shape[1] for image in expected]
    assert [problem.path for problem in images[1].problems] == [files[3]]


def test_unreadable_images_are_no_examples(files):
    tokens = train_tokenizer(["abc"], "characters")
    rows = pairs(*((path, ("ab",)) for path in files))
    examples = Seq2SeqDataset(rows, TextLineImages(files, PREPROCESS), tokens)
    assert examples.pair_index.tolist() == [0, 1, 2]
    assert examples.lengths[:, 0].tolist() == [16 // PIXELS_PER_TOKEN, 64 // PIXELS_PER_TOKEN, 1]
