import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.text.tokens import (
    BOS,
    EOS,
    KINDS,
    NUM_SPECIALS,
    PAD,
    UNK,
    Tokenizer,
    check_tokenizers,
    suggest_kind,
    train_tokenizer,
)
from striate.errors import BundleError, UsageError

SENTENCES = [
    "Zwei Männer stehen am Herd.",
    "Ein Hund läuft über den Strand.",
    "Der Mann liest ein Buch.",
] * 20


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_know_every_text(text):
    tokens = Tokenizer("bytes")
    ids = tokens.encode(text)
    assert bytes(i - NUM_SPECIALS for i in ids) == unicodedata.normalize("NFC", text).encode()
    assert tokens.decode(ids) == unicodedata.normalize("NFC", text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_characters_come_back_and_strangers_are_marked(texts):
    tokens = train_tokenizer(texts, "characters")
    for text in texts:
        assert tokens.decode(tokens.encode(text)) == unicodedata.normalize("NFC", text)
    stranger = chr(max((ord(c) for t in texts for c in unicodedata.normalize("NFC", t)), default=96) + 1)
    if unicodedata.normalize("NFC", stranger) == stranger:
        assert tokens.encode(stranger) == [UNK]
        assert tokens.decode([UNK]) == "\ufffd"


def test_words_are_what_spaces_separate():
    tokens = train_tokenizer(["B AH1 T", "B AH1", "B"], "words")
    assert tokens.vocabulary == ("B", "AH1", "T")  # the most frequent first
    assert tokens.encode(" B  T ") == [NUM_SPECIALS, NUM_SPECIALS + 2]
    assert tokens.decode([NUM_SPECIALS, NUM_SPECIALS + 1]) == "B AH1"
    assert train_tokenizer(["a b c a"], "words", size=NUM_SPECIALS + 1).vocabulary == ("a",)


def test_sentence_pieces_give_the_text_back():
    pytest.importorskip("sentencepiece")
    tokens = train_tokenizer(SENTENCES, "sentencepiece", size=60)
    for sentence in SENTENCES[:3]:
        ids = tokens.encode(sentence)
        assert min(ids) >= NUM_SPECIALS
        assert max(ids) < len(tokens)
        assert tokens.decode(ids) == sentence
    assert train_tokenizer(SENTENCES, "sentencepiece", size=60) == tokens


def test_sentence_pieces_change_nothing_but_the_composed_form():
    """nfkc, which sentencepiece applies by default, would change all of these."""
    pytest.importorskip("sentencepiece")
    texts = ["\u00bd cup", "\ufb01ne  print", "10\u00a0km\u00b2", "\uff21\uff22\u2026", "a \u2122"]
    tokens = train_tokenizer(texts * 20, "sentencepiece", size=80)
    for text in texts:
        assert tokens.decode(tokens.encode(text)) == text
    assert tokens.unknown("10 \u2603\u2603 kmx") == ("\u2603", "x")


def test_unknown_parts_of_a_text():
    characters, words = train_tokenizer(["abc"], "characters"), train_tokenizer(["A B"], "words")
    assert characters.unknown("xayx") == ("x", "y")
    assert words.unknown("A CC B CC") == ("CC",)
    assert Tokenizer("bytes").unknown("\u2603") == ()


@pytest.mark.parametrize("kind", KINDS)
def test_one_owner_of_begin_and_end(kind):
    if kind == "sentencepiece":
        pytest.importorskip("sentencepiece")
    tokens = train_tokenizer(SENTENCES, kind, size=60)
    text = "Ein Hund"
    ids = tokens.encode(text)
    assert not {PAD, BOS, EOS} & set(ids)
    assert tokens.encode_source(text) == [*ids, EOS]
    assert tokens.encode_target(text) == [BOS, *ids, EOS]
    assert tokens.decode([*tokens.encode_target(text), PAD, *ids]) == text  # nothing after END
    assert Tokenizer.from_json(json.loads(json.dumps(tokens.to_json()))) == tokens


def test_composed_and_decomposed_text_have_the_same_tokens():
    tokens = train_tokenizer(["é"], "characters")
    assert tokens.encode("e\u0301") == tokens.encode("é") == [NUM_SPECIALS]


def test_a_kind_that_suits_the_text():
    assert suggest_kind(["hello", "world", "seven"]) == "characters"
    assert suggest_kind(["3 May 1999", "1999-05-03"]) == "characters"
    assert suggest_kind(["HH AH0 L OW1", "W ER1 L D"]) == "words"
    assert suggest_kind(SENTENCES) in ("sentencepiece", "words")


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="did you mean characters"):
        Tokenizer("character")
    with pytest.raises(UsageError, match="duplicate"):
        Tokenizer("words", ("a", "a"))


def test_another_vocabulary_than_the_weights_is_refused():
    one, other = train_tokenizer(["abc"], "characters"), train_tokenizer(["abd"], "characters")
    shapes = {"source": len(one), "target": len(one)}
    check_tokenizers(one, one, shapes, [one.digest, one.digest], "a.safetensors")
    with pytest.raises(BundleError, match="differs from the one that its weights"):
        check_tokenizers(one, other, shapes, [one.digest, one.digest], "a.safetensors")
    longer = train_tokenizer(["abcd"], "characters")
    with pytest.raises(BundleError, match="source tokenizer has 8 ids, but its weights have 7"):
        check_tokenizers(longer, one, shapes, [longer.digest, one.digest], "a.safetensors")
