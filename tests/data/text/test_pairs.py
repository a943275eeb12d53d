import gzip
from dataclasses import replace

import pytest

from striate.data.text.columns import Column, ColumnSelection
from striate.data.text.pairs import open_pairs, split_pairs
from striate.errors import DataError, UsageError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_a_table_of_tabs_has_several_right_answers(tmp_path):
    table = write(tmp_path / "words.tsv", "read\tR EH1 D\tR IY1 D\nsea\tS IY1\n")
    data = open_pairs(table, columns=ColumnSelection.of(references="all"))
    assert data.kind == "text"
    assert data.columns == (
        Column("column 1", "source", 2), Column("column 2", "target", 2), Column("column 3", "reference", 1),
    )  # fmt: skip
    assert data.splits["all"].sources == ("read", "sea")
    assert data.splits["all"].references == (("R EH1 D", "R IY1 D"), ("S IY1",))
    assert data.splits["all"].places == ("words.tsv:1", "words.tsv:2")


def test_a_further_column_is_named_and_not_used(tmp_path):
    """It was a second reference once: a lemma's features would have been a correct inflected form."""
    for split, rows in (("train", 3), ("val", 2)):
        write(tmp_path / f"{split}.tsv", "run\tran\tV;PST\n" * rows)
    data = open_pairs(tmp_path)
    assert data.splits["train"].references == (("ran",),) * 3
    assert data.columns[2] == Column("column 3", "unused", 5)
    assert data.notes[0] == (
        "not used: column 3 (5 lines); --source-columns, --target-columns and --reference-columns select "
        "columns by name or number"
    )
    joined = open_pairs(tmp_path, columns=ColumnSelection.of(source="1,3"))
    assert joined.splits["val"].sources == ("run V;PST",) * 2
    assert joined.splits["val"].references == (("ran",),) * 2
    assert [column.use for column in joined.columns] == ["source", "target", "source"]
    assert not any("not used" in note for note in joined.notes)


def test_parallel_files_have_no_columns(tmp_path):
    for name in ("train.de", "train.en", "val.de", "val.en"):
        write(tmp_path / name, "a\n")
    chosen = ColumnSelection.of(source=1)
    for data in ([tmp_path], [tmp_path / "train.de", tmp_path / "train.en"]):
        with pytest.raises(UsageError, match="parallel files have no columns"):
            open_pairs(*data, columns=chosen)
        assert len(open_pairs(*data, columns=replace(chosen, optional=True)).splits["train"]) == 1


def test_a_line_without_a_tab_is_named(tmp_path):
    with pytest.raises(DataError, match=r"words\.tsv:2: the line has no tab: 'sea S IY1'"):
        open_pairs(write(tmp_path / "words.tsv", "read\tR EH1 D\nsea S IY1\n"))


def test_parallel_files_find_their_other_splits(tmp_path):
    for name, count in (("train", 3), ("val", 1), ("test2016", 2)):
        for language in ("en", "de"):
            write(tmp_path / f"{name}.{language}", "".join(f"{language} {i}\n" for i in range(count)))
    beside = open_pairs(tmp_path / "train.de", tmp_path / "train.en")
    assert {name: len(pairs) for name, pairs in beside.splits.items()} == {"train": 3, "val": 1, "test": 2}
    assert beside.splits["test"].sources == ("de 0", "de 1")
    assert beside.splits["test"].references == (("en 0",), ("en 1",))
    folder = open_pairs(tmp_path)
    assert folder.splits["val"].sources == ("de 0",)
    assert folder.notes == (
        "from de to en (--from and --to change this)",
        "1 of 1 sources of val are also in train",
        "2 of 2 sources of test are also in train",
    )
    assert open_pairs(tmp_path, languages=("en", "de")).splits["val"].sources == ("en 0",)


def test_gzipped_files_read_as_plain_ones(tmp_path):
    for language in ("en", "de"):
        for name in ("train", "val"):
            raw = f"{name} {language}\n".encode()
            (tmp_path / f"{name}.{language}.gz").write_bytes(gzip.compress(raw))
    assert open_pairs(tmp_path).splits["train"].sources == ("train de",)
    pair = tmp_path / "train.en.gz", tmp_path / "train.de.gz"
    assert open_pairs(*pair).splits["val"].references == (("val de",),)


def test_files_of_unequal_length_are_refused(tmp_path):
    left, right = write(tmp_path / "a.en", "1\n2\n3\n"), write(tmp_path / "a.de", "1\n2\n")
    with pytest.raises(DataError, match="3 and 2 lines"):
        open_pairs(left, right)


def test_only_a_newline_ends_a_line(tmp_path):
    left, right = (
        write(tmp_path / "a.en", "one\u2028more\x0cline\n2"),
        write(tmp_path / "a.de", "eins\nzwei\n"),
    )
    assert open_pairs(left, right).splits["all"].sources == ("one\u2028more\x0cline", "2")


def test_a_table_of_images(tmp_path):
    table = write(tmp_path / "lines.csv", 'path,text,split\na.png,"one, two",train\nb.png,three,val\n')
    data = open_pairs(table)
    assert data.kind == "images"
    assert data.splits["train"].sources == (str(tmp_path / "a.png"),)
    assert data.splits["train"].references == (("one, two",),)
    with pytest.raises(DataError, match="must name the columns"):
        open_pairs(write(tmp_path / "other.csv", "image,label\na.png,x\n"))


def test_empty_sides_are_left_out_and_counted(tmp_path):
    data = open_pairs(write(tmp_path / "a.tsv", "one\t1\n\t2\nthree\t\n\nfour\t4\n"))
    assert data.splits["all"].sources == ("one", "four")
    assert data.notes == ("skipped 2 pairs with an empty side, the first at a.tsv:2",)
    assert data.skipped == 2


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"one\t1\n\xff\t2\n")
    with pytest.raises(DataError, match=r"a\.tsv:2: the line is not valid UTF-8"):
        open_pairs(tmp_path / "a.tsv")


def test_division_keeps_equal_sources_together(tmp_path):
    lines = "".join(f"s{i % 40}\tt{i}\n" for i in range(200))
    data = open_pairs(write(tmp_path / "a.tsv", lines))
    divided = split_pairs(data, seed=3)
    parts = {name: set(pairs.sources) for name, pairs in divided.splits.items()}
    assert set(parts) == {"train", "val", "test"}
    assert not parts["train"] & parts["val"]
    assert not parts["train"] & parts["test"]
    assert not parts["val"] & parts["test"]
    assert sum(map(len, divided.splits.values())) == 200
    assert 15 <= len(divided.splits["val"]) <= 30
    # The order of the file does not matter, the seed does.
    other = open_pairs(write(tmp_path / "b.tsv", "".join(sorted(lines.splitlines(True), reverse=True))))
    assert set(split_pairs(other, seed=3).splits["val"].sources) == parts["val"]
    assert set(split_pairs(data, seed=4).splits["val"].sources) != parts["val"]


def test_too_little_to_measure_by(tmp_path):
    with pytest.raises(DataError, match="Train and val need at least one pair each"):
        split_pairs(open_pairs(write(tmp_path / "a.tsv", "one\t1\n")))
