"""The JSON reader: the native one against Python's, on good and on damaged texts."""

import json
import struct

import numpy as np
import pytest
from coco_oracle import awkward
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.errors import DataError
from striate.metrics.detection import coco_json, kernel, read_detections, read_ground_truth, reference

needs_native = pytest.mark.skipif(kernel._native is None, reason="the native kernel was not built here")
ROW = '{"image_id":1,"category_id":2,"bbox":[1.5,2,3.25,4],"score":0.75}'


def native(text, results=True, threads=1):
    return kernel._native.read_json(text, results, threads)


def read_both(tmp_path, text, results):
    """What the native and Python's reader make of a text: columns, or None where it is refused."""
    path = tmp_path / "text.json"
    path.write_bytes(text)
    answers = []
    for reader in (
        lambda: coco_json._columns(path, results, 2),
        lambda: coco_json._general_columns(path, text, results),
    ):
        try:
            answers.append(reader())
        except DataError as error:
            answers.append(None if "\n" not in str(error) else str(error))
    return answers


def assert_same_columns(ours, theirs, results):
    names = ["image", "category", "box"] + (["score"] if results else ["id", "area", "crowd", "images"])
    for name in names:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    if not results:
        np.testing.assert_array_equal(ours["sizes"], np.reshape(theirs["sizes"], (-1, 2)))
        assert ours["categories"] == theirs["categories"]
        assert ours["areas_missing"] == theirs["areas_missing"]


def number_of(text):
    row = f'[{{"image_id":1,"category_id":1,"bbox":[0,0,1,1],"score":{text}}}]'.encode()
    read = native(row)
    return np.frombuffer(read["score"], np.float64)[0] if isinstance(read, dict) else None


@needs_native
@settings(deadline=None)
@given(st.floats())
def test_every_double_is_read_back(value):
    assert struct.pack("d", number_of(json.dumps(value))) == struct.pack("d", value) or np.isnan(value)


@needs_native
@settings(deadline=None)
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True))
def test_every_number_is_what_python_reads(text):
    assert number_of(text) == float(json.loads(text))


@needs_native
@settings(deadline=None)
@given(st.text(alphabet="0123456789+-.eE NaIfinty", max_size=12))
def test_what_python_refuses_is_refused(text):
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        assert number_of(text) is None
    else:
        assert number_of(text) == pytest.approx(float(value), rel=0, abs=0, nan_ok=True)


@needs_native
@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_unknown_keys_of_any_content_are_skipped(value, indent, ascii_only):
    rows = [{"segmentation": value, **json.loads(ROW), 'é"': value}] * 3
    read = native(json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    try:
        json.dumps(rows, ensure_ascii=ascii_only).encode("utf-8")
    except UnicodeEncodeError:
        return  # half a surrogate pair, as bytes, is no UTF-8
    assert np.frombuffer(read["score"], np.float64).tolist() == [0.75] * 3


@needs_native
def test_keys_may_be_written_with_escapes():
    text = ROW.replace('"score"', '"\\u0073c\\u006Fre"').encode()
    assert np.frombuffer(native(b"[" + text + b"]")["score"], np.float64).tolist() == [0.75]


@needs_native
def test_of_a_repeated_key_the_last_one_counts():
    text = ROW.replace('"score":0.75', '"score":0.5,"score":0.25').encode()
    assert np.frombuffer(native(b"[" + text + b"]")["score"], np.float64).tolist() == [0.25]


@needs_native
@pytest.mark.parametrize("wrong", ['"bbox":7', '"image_id":{}', '"score":"high"', '"category_id":1.5'])
def test_a_wrong_value_does_not_count_where_its_key_is_repeated(wrong, tmp_path):
    ours, theirs = read_both(tmp_path, b"[" + ROW.replace("{", "{" + wrong + ",", 1).encode() + b"]", True)
    assert ours is not None
    assert theirs is not None
    assert_same_columns(ours, theirs, True)


@needs_native
@pytest.mark.parametrize("results", [True, False])
@pytest.mark.parametrize("block", range(4))
def test_damaged_texts(block, results, tmp_path):
    """Cut short, bits flipped, pieces out or doubled: never a crash, never another answer than Python's."""
    rng = np.random.default_rng(block)
    gt, rows = awkward(block)
    agreed = 0
    for _ in range(400):
        text = bytearray(json.dumps(rows[:4] if results else gt, indent=[None, 1][block % 2]).encode())
        for _ in range(rng.integers(1, 3)):
            at, kind = rng.integers(len(text)), rng.integers(5)
            if kind == 0:
                del text[at:]
            elif kind == 1:
                text[at] ^= 1 << rng.integers(8)
            elif kind == 2:
                del text[at : at + rng.integers(1, 6)]
            elif kind == 3:
                text[at:at] = text[max(0, at - rng.integers(1, 12)) : at]
            else:
                text[at] = rng.choice(list(b'{}[]",:0-.eE\\tnN '))
            text = text or bytearray(b"[")
        ours, theirs = read_both(tmp_path, bytes(text), results)
        assert (ours is None) == (theirs is None), bytes(text)
        if ours is not None:
            agreed += 1
            assert_same_columns(ours, theirs, results)
    assert agreed > 5


@needs_native
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"[",
        b"{",
        b"[1]",
        b"[{}]",
        b"[[]]",
        b"nul",
        b'"',
        b"[" * 100000,
        b'{"a":' * 100000,
        b"\xff\xfe",
        b"[,]",
    ],
)
def test_hopeless_texts(text, tmp_path):
    assert read_both(tmp_path, text, True) == [None, None]
    assert read_both(tmp_path, text, False) == [None, None]


ORDERS = [
    ["image_id", "category_id", "bbox", "score"],
    ["score", "bbox", "category_id", "image_id"],
    ["extra", "image_id", "score", "another one", "category_id", "bbox"],
]


@needs_native
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " :\t")])
def test_rows_with_their_keys_in_changing_orders(separators, tmp_path):
    """The keys of the row before are only a guess: they may change in number, order, length and spelling."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(300):
        values = {"image_id": i, "category_id": 10**i % 97, "bbox": [i, 0.5, -1, 1e3], "score": i / 7}
        values |= {"extra": [1, 20, 3.25, -4], "another one": {"bbox": [], "score": "no"}}
        order = ORDERS[int(rng.integers(3)) if i > 100 else 0]
        rows.append({key: values[key] for key in order})
    text = json.dumps(rows, separators=separators).replace('"score"', '"sc\\u006fre"', 3).encode()
    ours, theirs = read_both(tmp_path, text, True)
    assert_same_columns(ours, theirs, True)
    assert ours["image"].tolist() == list(range(300))


NUMBERS = [
    "0",
    "0.5",
    "12",
    "12.5",
    "123456",
    "1234567",
    "12345678",
    "123.4567",
    "0.25",
    "-3",
    "1e5",
    "7.125E-2",
]
PLAIN = ["0", "7", "12", "0.5", "12.5", "239.97", "1000.25", "123456.789012345", "1234567890123456789"]
WRONG = ["01", "00.5", "1.", ".5", "1..5", "1.5.2", "", "1 2", "+1", "1,", "0x1", "1.e5", "-"]


@needs_native
@pytest.mark.parametrize("comma", [",", ", ", "\n,"])
def test_numbers_of_a_polygon_are_held_to_the_grammar(comma, tmp_path):
    rng = np.random.default_rng(0)
    for wrong in [None] * 60 + WRONG * 12:
        known = NUMBERS if rng.random() < 0.5 else PLAIN
        numbers = rng.choice(known, rng.integers(1, 30)).tolist()
        if wrong is not None:
            numbers.insert(int(rng.integers(len(numbers) + 1)), wrong)
        text = b'[{"segmentation":[[' + comma.join(numbers).encode() + b"]]," + ROW[1:].encode() + b"]"
        ours, theirs = read_both(tmp_path, text, True)
        accepted = wrong is None or (wrong == "" and not numbers)
        assert ((ours is not None), (theirs is not None)) == (accepted, accepted), text


@needs_native
@pytest.mark.parametrize("comma", [",", ", ", ",  ", " ,"])
def test_numbers_of_a_box_are_held_to_the_grammar(comma, tmp_path):
    """Four short numbers are read at once, others one after the other; of both, not a bit may differ."""
    rng = np.random.default_rng(0)
    known = [*NUMBERS, *PLAIN, "12345.67", "1234567.8", "0.000001", "99999999", "NaN", "1e400"]
    for wrong in [None] * 60 + [w for w in WRONG if w] * 12:
        numbers = rng.choice(known, 4).tolist()
        if wrong is not None:
            numbers[rng.integers(4)] = wrong
        row = ROW.replace("1.5,2,3.25,4", comma.join(numbers)).encode()
        # At the end of a text there is no room to read several at once.
        text = b"[" + row + (b"," + ROW.encode() if rng.random() < 0.8 else b"") + b"]"
        ours, theirs = read_both(tmp_path, text, True)
        assert ((ours is None), (theirs is None)) == (wrong is not None,) * 2, text
        if wrong is None:
            assert ours["box"].tobytes() == theirs["box"].tobytes(), text


@needs_native
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_a_box_has_four_numbers(count, tmp_path):
    row = ROW.replace("1.5,2,3.25,4", ",".join(["1.5"] * count))
    assert read_both(tmp_path, f"[{row},{ROW}]".encode(), True) == [None, None]


@needs_native
@pytest.mark.parametrize("size", ["640", "640.5", "-1", "null", '"640"', "true", "[1]", "1e2", "NaN", None])
def test_sizes_of_images(size, tmp_path):
    image = '{"id":1' + (f',"width":{size}' if size else "") + ',"height":480}'
    text = '{"images":[' + image + '],"annotations":[],"categories":[]}'
    ours, theirs = read_both(tmp_path, text.encode(), False)
    assert_same_columns(ours, theirs, False)


@needs_native
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_rows_shared_out_among_threads(threads):
    """Strings that look like the space between rows mislead the guess, not the result."""
    rng = np.random.default_rng(threads)
    rows = []
    for i in range(30000):
        row = {
            "image_id": i,
            "category_id": 2,
            "bbox": [i, 0.5, 1, 1],
            "score": float(np.round(rng.random(), 4)),
        }
        rows.append({"note": "}, {" * int(rng.integers(0, 40)), **row} if threads == 5 else row)
    text = json.dumps(rows).encode()
    one, many = native(text), native(text, threads=threads)
    assert np.frombuffer(many["image"], np.int64).tolist() == list(range(30000))
    for name in ("image", "category", "box", "score"):
        assert bytes(one[name]) == bytes(many[name])
    broken = text[:-3] + b"x" + text[-3:]
    assert native(broken, threads=threads) == native(broken) == (len(text) - 3, native(broken)[1], 0)


@needs_native
@pytest.mark.parametrize("threads", [1, 3])
def test_ids_are_looked_up_while_reading(threads):
    """Places are those of `places`, and unknown ids are listed in their order, also over several threads."""
    rng = np.random.default_rng(threads)
    image, category = rng.integers(-5, 40, 20000), rng.choice([1, 7, 2**40, -(2**62), 9], 20000)
    known = np.array([-3, 0, 1, 2, 2**33, 17, 17, 39]), np.array([1, 2**40, -(2**62)])
    text = json.dumps(
        [
            {"image_id": i, "category_id": c, "bbox": [1, 2, 3, 4], "score": 0.5}
            for i, c in zip(np.repeat(image, 2).tolist(), np.repeat(category, 2).tolist(), strict=True)
        ]
    ).encode()
    raw, read = native(text, threads=threads), kernel._native.read_json(text, True, threads, known)
    for name, ids in zip(("image", "category"), known, strict=True):
        given = np.frombuffer(raw[name], np.int64)
        expected = np.empty(given.size, np.int32)
        reference.places(given, ids, expected)
        assert np.frombuffer(read[f"{name}_place"], np.int32).tolist() == expected.tolist()
        assert np.frombuffer(read[name], np.int64).tolist() == given[expected < 0].tolist()
        assert bytes(raw[f"{name}_place"]) == b""
    assert bytes(read["box"]) == bytes(raw["box"])
    for odd in ((known[0].astype(np.int32), known[1]), (known[0], "ids")):
        with pytest.raises((ValueError, TypeError)):
            kernel._native.read_json(text, True, threads, odd)


@needs_native
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_ids_are_looked_up_after_a_wrong_guess(threads):
    """Where a string looks like the space between rows, a thread goes on with the next row, of the id 0."""
    notes = "}, {" * 200_000
    rows = [
        {"image_id": i % 2 * 5, "category_id": i % 2 * 3, "bbox": [1, 2, 3, 4], "score": 0.5}
        for i in range(1, 7)
    ]
    text = json.dumps([{**row, "note": notes} if row["image_id"] else row for row in rows]).encode()
    known = np.array([0, 5]), np.array([0, 3])
    read = kernel._native.read_json(text, True, threads, known)
    for name in ("image_place", "category_place"):
        assert np.frombuffer(read[name], np.int32).tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("version", ["native", "numpy"])
def test_ids_that_the_ground_truth_does_not_have(version, tmp_path, monkeypatch):
    if version == "numpy":
        monkeypatch.setattr(kernel, "_native", None)
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    gt.write_text(
        '{"images":[{"id":5},{"id":1}],"categories":[{"id":2},{"id":1}],"annotations":[{"id":1,"image_id":1,'
        '"category_id":2,"bbox":[0,0,1,1]}]}'
    )
    truth = read_ground_truth(gt)
    other = [ROW.replace('"category_id":2', f'"category_id":{number}') for number in (90, -4)]
    rows = [ROW, other[0], ROW.replace('"image_id":1', '"image_id":5'), other[1], other[1]]
    dt.write_text(f"[{','.join(rows)}]")
    found = read_detections(dt, truth)
    assert (found.image.dtype, found.image.tolist()) == (np.int32, [0, 0, 1, 0, 0])
    assert (found.category.dtype, found.category.tolist()) == (np.int32, [1, -1, 1, -1, -1])
    assert found.notes == (
        "3 detections of classes that the ground truth does not have (-4, 90) were dropped",
    )
    dt.write_text(f"[{ROW},{ROW.replace('1', '77', 1)}]")
    with pytest.raises(DataError, match=r"image 77 of .*dt\.json"):
        read_detections(dt, truth)


def test_mistakes_are_told_with_their_place(tmp_path):
    gt = tmp_path / "gt.json"
    gt.write_text('{"images":[{"id":1}],"categories":[{"id":2,"name":"cat"}],"annotations":[]}')
    truth = read_ground_truth(gt)
    assert truth.category_names == ("cat",)
    dt = tmp_path / "dt.json"
    dt.write_text("[\n" + ROW + ",\n" + ROW.replace("4]", "4") + "]")
    with pytest.raises(DataError, match=r"dt\.json, line 3, column \d+"):
        read_detections(dt, truth)
    dt.write_text("[" + ROW.replace('"score"', '"sure"') + "]")
    with pytest.raises(DataError, match=r"without score|not an object with score"):
        read_detections(dt, truth)
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.json.: no such file"):
        read_ground_truth(tmp_path / "nowhere.json")
    dt.write_text("[]")
    with pytest.raises(DataError, match=r"ground truth should be an object|annotations should be an array"):
        read_ground_truth(dt)


BAD = [
    b'"\x01"',
    b'"\\x"',
    b'"\\u12g4"',
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\xf5\x80\x80\x80"',
    b'"a',
]
BAD += [
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"1e",
    b"1e+",
    b"-",
    b"--1",
    b"0x1",
    b"tru",
    b"nulll",
    b"Nan",
    b"[1,]",
    b"[,1]",
    b"{1:2}",
]
BAD += [b'{"a" 1}', b'{"a":1,}', b"[1 2]", b"[}", b"'a'", b"", b"1" * 30 + b"."]
GOOD = [
    b'"\\u00e9\\n\\/"',
    b'"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"',
    b'"\x7f"',
    b"-0",
    b"1E5",
    b"0.5e-3",
    b"[ ]",
    b"{ }",
    b"NaN",
]


@needs_native
@pytest.mark.parametrize("padding", [0, 9])  # at the end of the text, and with plenty of it to come
def test_values_that_are_skipped_are_held_to_the_grammar(padding, tmp_path):
    for values, accepted in ((BAD, False), (GOOD, True)):
        for value in values:
            text = b'[{"note":' + value + b"," + ROW[1:].encode() + b" " * padding + b"]"
            ours, theirs = read_both(tmp_path, text, True)
            assert ((ours is not None), (theirs is not None)) == (accepted, accepted), value
            end = b"[" + ROW[:-1].encode() + b',"note":' + value + b"}]"
            assert (read_both(tmp_path, end, True)[0] is not None) == accepted, value
