"""The encoding of names in archives: guessed from the bytes, and said where there is doubt."""

import io
import tarfile
import zipfile
import zlib

import pytest

from striate.data import open_data
from striate.data.images.member_names import decode_names

GUESSED = {
    "gb18030": ("GBK", ["猫_", "狗", "向日葵", "草莓"]),
    "cp932": ("Shift-JIS", ["ねこ", "ソース表", "薔薇"]),
    "cp950": ("Big5", ["向日葵", "鬱金香", "蘋果"]),
    "cp949": ("EUC-KR", ["고양이", "강아지"]),
    "euc_jp": ("EUC-JP", ["ねこ", "東京タワー"]),
    "cp437": ("CP437", ["café", "Ångström", "naïve"]),
    "cp1252": ("CP1252", ["café", "Käse"]),
    "cp866": ("CP866", ["кошка", "собака"]),
    "cp1251": ("CP1251", ["кошка", "собака"]),
}


@pytest.mark.parametrize("codec", GUESSED)
def test_names_in_the_encoding_of_a_system(codec):
    title, names = GUESSED[codec]
    paths = [f"data/{name}/00.png" for name in names] + ["data/plain.png"]
    decoded, note = decode_names([path.encode(codec) for path in paths], "cp437")
    assert decoded == paths
    assert f"read as {title}: " in note
    assert repr(min(names, key=lambda name: name.encode(codec))) in note


@pytest.mark.parametrize("names", [["猫"], ["ねこ"], ["γάτα", "σκύλος"], ["кошка", "собака"]])
def test_utf_8_without_a_mark(names):
    assert decode_names([name.encode() for name in names], "cp437") == (names, "")


def test_words_with_accents_are_not_taken_for_chinese():
    names = ["café", "naïve"]
    decoded, note = decode_names([name.encode() for name in names], "cp437")
    assert decoded == names
    assert "read as UTF-8: 'café', 'naïve'" in note


def test_an_unknown_encoding_is_said():
    decoded, note = decode_names([b"\xb0\xb1\xfe/x.png"], "utf-8")
    assert decoded == ["\udcb0\udcb1\udcfe/x.png"]
    assert "the encoding is not recognized" in note


def pack_zip(path, names, codec, extra=False):
    """Write members whose names are bytes of any encoding, without the mark for UTF-8."""
    stand_ins = {}
    with zipfile.ZipFile(path, "w") as file:
        for i, name in enumerate(names):
            raw = name.encode(codec)
            info = zipfile.ZipInfo(f"{i}{'~' * (len(raw) - 1)}")
            stand_ins[info.filename.encode()] = raw
            if extra:
                body = b"\x01" + zlib.crc32(raw).to_bytes(4, "little") + name.encode()
                info.extra = (0x7075).to_bytes(2, "little") + len(body).to_bytes(2, "little") + body
            file.writestr(info, name.encode())
    data = path.read_bytes()
    for stand_in, raw in stand_ins.items():
        data = data.replace(stand_in, raw)
    path.write_bytes(data)


def pack_tar(path, names, codec):
    with tarfile.open(
        path, "w:gz" if path.suffix == ".gz" else "w", format=tarfile.GNU_FORMAT, encoding=codec
    ) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name.encode())
            tar.addfile(info, io.BytesIO(name.encode()))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("codec", ["gb18030", "cp932"])
def test_archives(tmp_path, kind, codec):
    classes = ("ソース", "表") if codec == "cp932" else ("狗", "猫_")  # two end in the byte of a backslash
    names = [f"top/{name}/{i}.png" for name in classes for i in range(2)]
    path = tmp_path / f"x.{kind}"
    (pack_zip if kind == "zip" else pack_tar)(path, names, codec)
    data = open_data(path)
    assert data.classes == tuple(sorted(classes))
    assert f"read as {GUESSED[codec][0]}: " in data.notes[0]
    samples = data.splits["all"]
    for i, name in enumerate(samples.names):  # each member holds its own name
        assert name.endswith(samples.fetch(i).decode())


def test_a_zip_with_the_names_in_utf_8_as_well(tmp_path):
    names = ["ä/1.png", "ö/1.png"]
    pack_zip(tmp_path / "x.zip", names, "cp850", extra=True)
    data = open_data(tmp_path / "x.zip")
    assert (data.classes, data.notes) == (("ä", "ö"), ())


def test_marked_names_need_no_guess(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name in ("è_/1.png", "dog/1.png"):
            file.writestr(name, b"")
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("è_/1.png", "dog/1.png"):
            tar.addfile(tarfile.TarInfo(name))
    for kind in ("zip", "tar"):
        data = open_data(tmp_path / f"x.{kind}")
        assert (data.classes, data.notes) == (("dog", "è_"), ())


def test_the_shared_zip(shared):
    data = open_data(shared / "cases" / "gbk.zip")
    assert data.classes == ("dog", "猫_")
    assert "read as GBK: '猫_'" in data.notes[0]
