"""Greedy and beam search: against scores of whole texts, and against every text there is."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.inference.generation import beam, greedy, length_penalty, top
from striate.models.seq2seq import TextToText

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIALS = [PAD, BEGIN, UNKNOWN]  # never generated


def network(vocab=9, seed=0, **arguments):
    """A small translator whose answers differ from place to place: fresh weights, enlarged."""
    torch.manual_seed(seed)
    network = TextToText(12, vocab, width=16, depth=2, heads=2, hidden=32, max_length=40, **arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.7)
    return network.eval()


def sources(batch=6, length=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(3, 12, (batch, length), generator=generator)
    lengths = torch.randint(1, length + 1, (batch, 1), generator=generator)
    return source.masked_fill(torch.arange(length) >= lengths, 0)


def full_logits(net, source, text):
    """Of a whole text for one source, by teacher forcing; the tokens that are never generated have -inf."""
    target = torch.tensor([[BEGIN, *text[:-1]]])
    with torch.no_grad():
        logits = net(source[source != 0][None], target)[0]
    logits[:, SPECIALS] = -torch.inf
    return logits


def log_probability(net, source, text):
    logits = full_logits(net, source, text).log_softmax(dim=1)
    return float(logits[torch.arange(len(text)), torch.tensor(text)].sum())


def whole(hypothesis):
    return [*hypothesis.tokens, *([END] if hypothesis.ended else [])]


def test_greedy_takes_the_likeliest_token_of_the_full_logits():
    net, source = network(), sources()
    found = greedy(net.decoder, *net.encode(source), 12)
    for row, (hypothesis,) in zip(source, found, strict=True):
        text = whole(hypothesis)
        assert full_logits(net, row, text).argmax(dim=1).tolist() == text
        assert hypothesis.ended or len(text) == 12
        assert hypothesis.log_probability == pytest.approx(log_probability(net, row, text), abs=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_a_beam_of_one_is_greedy(seed):
    net, source = network(seed=seed), sources(seed=seed)
    memory = net.encode(source)
    ones = beam(net.decoder, *memory, 12, beams=1)
    for (a,), (b,) in zip(greedy(net.decoder, *memory, 12), ones, strict=True):
        assert (a.tokens, a.ended) == (b.tokens, b.ended)
        assert a.log_probability == pytest.approx(b.log_probability, abs=1e-5)


def every_text(net, source, vocab, limit, alpha):
    """All texts that end within the limit, best first, with their scores."""
    others = range(4, vocab)
    texts = [(*t, END) for n in range(limit) for t in itertools.product(others, repeat=n)]
    scores = [log_probability(net, source, list(t)) / length_penalty(len(t), alpha) for t in texts]
    return sorted(zip(scores, texts, strict=True), reverse=True)


@pytest.mark.parametrize(("vocab", "limit", "beams"), [(7, 3, 36), (9, 2, 30), (6, 4, 24)])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_wide_beam_is_brute_force(vocab, limit, beams, alpha):
    """A beam with room for every prefix finds the best texts of all, in order."""
    net, source = network(vocab), sources(batch=3)
    found = beam(net.decoder, *net.encode(source), limit, beams=beams, best=5, alpha=alpha)
    for row, hypotheses in zip(source, found, strict=True):
        expected = every_text(net, row, vocab, limit, alpha)[:5]
        assert [tuple(whole(h)) for h in hypotheses] == [text for _, text in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-4)


def test_a_beam_as_wide_as_the_vocabulary_keeps_every_first_token():
    """Then the second token is brute force: the best texts of two tokens, unended ones too."""
    net, source = network(10), sources(batch=4)
    found = beam(net.decoder, *net.encode(source), 2, beams=7, best=7, alpha=0.0)
    for row, hypotheses in zip(source, found, strict=True):
        first = range(4, 10)
        ended = [[END], *([t, END] for t in first)]
        best = max(ended, key=lambda text: log_probability(net, row, text))
        assert whole(hypotheses[0]) == best
        cut = [h for h in hypotheses if not h.ended]
        if cut:
            texts = [[a, b] for a in first for b in first]
            assert whole(cut[0]) == max(texts, key=lambda text: log_probability(net, row, text))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.6, 1.0]), st.integers(1, 3))
def test_the_scores_are_those_of_the_texts(seed, alpha, best):
    net, source = network(seed=seed), sources(seed=seed)
    found = beam(net.decoder, *net.encode(source), 10, beams=3, best=best, alpha=alpha)
    for row, hypotheses in zip(source, found, strict=True):
        assert len({h.tokens for h in hypotheses}) == len(hypotheses) == best
        for h in hypotheses:
            text = whole(h)
            assert len(text) <= 10
            assert h.log_probability == pytest.approx(log_probability(net, row, text), abs=1e-4)
            assert h.score == pytest.approx(h.log_probability / ((5 + len(text)) / 6) ** alpha)
        ended = [h.score for h in hypotheses if h.ended]
        assert ended == sorted(ended, reverse=True)
        assert all(h.ended for h in hypotheses[: len(ended)])


@pytest.mark.parametrize("beams", [None, 3])
def test_a_batch_is_its_sentences_one_by_one(beams):
    """Each with its own limit, whoever has left the batch before."""
    net, source = network(), sources(batch=9)
    limits = [1, 14, 3, 8, 14, 2, 5, 14, 9]

    def write(rows, limit):
        memory = net.encode(rows)
        if beams is None:
            return greedy(net.decoder, *memory, limit)
        return beam(net.decoder, *memory, limit, beams=beams, best=2)

    together = write(source, limits)
    for row, limit, expected in zip(source, limits, together, strict=True):
        (alone,) = write(row[row != 0][None], [limit])
        assert [(h.tokens, h.ended) for h in alone] == [(h.tokens, h.ended) for h in expected]
        assert [h.score for h in alone] == pytest.approx([h.score for h in expected], abs=1e-5)


@pytest.mark.parametrize("beams", [None, 3])
def test_attention_is_that_of_the_full_pass(beams):
    net, source = network(), sources()
    memory = net.encode(source)
    if beams is None:
        found = greedy(net.decoder, *memory, 8, attention=True)
    else:
        found = beam(net.decoder, *memory, 8, beams=beams, attention=True)
    attention, inputs = net.decoder.layers.layers[-1].cross_attention, []
    attention.register_forward_pre_hook(lambda _module, arguments: inputs.append(arguments))
    width = attention.in_proj_weight.shape[1]
    for row, (hypothesis,) in zip(range(6), found, strict=True):
        text = whole(hypothesis)
        with torch.no_grad():
            net.decoder(torch.tensor([[BEGIN, *text[:-1]]]), *(part[row : row + 1] for part in memory))
        x, source, mask = inputs[-1]
        project = [
            (y @ w.T + b).unflatten(2, (2, width // 2))
            for y, w, b in zip(
                (x, source),
                attention.in_proj_weight.split(width),
                attention.in_proj_bias.split(width),
                strict=False,
            )
        ]
        scores = torch.einsum("bqhd,bkhd->bhqk", *project) / (width // 2) ** 0.5
        expected = scores.masked_fill(~mask, -torch.inf).softmax(dim=3)[0].mean(dim=0)
        torch.testing.assert_close(hypothesis.attention, expected, atol=1e-5, rtol=0)
    assert greedy(net.decoder, *memory, 8)[0][0].attention is None


@pytest.mark.parametrize("beams", [None, 1, 4])
def test_special_tokens_are_never_generated(beams):
    """Even where the network gives them nearly all the probability, and to the end of a beam search."""
    net, source = network(7), sources()
    with torch.no_grad():
        net.decoder.output.bias[SPECIALS] = 50.0
    memory = net.encode(source)
    if beams is None:
        found = greedy(net.decoder, *memory, 9)
    else:
        found = beam(net.decoder, *memory, 9, beams=beams, best=beams)
    for row, hypotheses in zip(source, found, strict=True):
        assert hypotheses
        for hypothesis in hypotheses:
            assert not set(hypothesis.tokens) & set(SPECIALS)
            text = whole(hypothesis)
            assert hypothesis.log_probability == pytest.approx(log_probability(net, row, text), abs=1e-4)


def test_sentences_that_ended_are_computed_no_more():
    """The decoder sees fewer and fewer of them."""
    net, source = network(), sources(batch=8)
    rows = []
    net.decoder.embed.register_forward_pre_hook(lambda _module, arguments: rows.append(len(arguments[0])))
    greedy(net.decoder, *net.encode(source), [1, 1, 2, 2, 3, 3, 12, 12])
    assert rows[0] == 8
    assert rows[-1] <= 2
    assert rows == sorted(rows, reverse=True)


def test_the_length_penalty_of_the_paper():
    assert length_penalty(1, 0.6) == 1
    assert length_penalty(13, 0.5) == pytest.approx(3**0.5)
    assert length_penalty(40, 0) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 2000), st.integers(1, 10), st.integers(0, 2**16))
def test_top_is_topk(rows, n, k, seed):
    scores = torch.randn(rows, n, generator=torch.Generator().manual_seed(seed))
    values, places = top(scores, min(k, n))
    expected = scores.topk(min(k, n))
    assert torch.equal(values, expected.values)
    assert torch.equal(scores.gather(1, places), values)
