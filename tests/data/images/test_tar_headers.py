"""Headers of tar archives: the members that tarfile and GNU tar find, and damage that both pass over."""

import gzip
import io
import random
import resource
import shutil
import subprocess
import tarfile

import pytest

from striate.data.images import archives, open_data
from striate.data.images.tar_headers import (
    BLOCK,
    MAX_EXTENSION,
    TarDamageError,
    TarHeaders,
    skip_in_file,
    skip_in_stream,
)
from striate.errors import DataError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def members_of(path):
    """All members, and the headers that were read."""
    with path.open("rb", buffering=0) as file:
        headers = TarHeaders(file, skip_in_file(file))
        return list(headers), headers


def pack(path, form, odd=True):
    """An archive of files of several sizes, folders, links, and long and foreign names."""
    names = ["a/0.png", "a/1.png", "b/2.png", "b/" + "d" * 90 + "/3.png"]
    if odd:
        names += ["b/" + "n" * 180 + ".png"] * (form != "ustar") + ["c/blüte-花.png"]
    with tarfile.open(path, "w", format=FORMATS[form]) as tar:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for i, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = (0, 1, 511, 512, 513, 3000, 77)[i]
            tar.addfile(info, io.BytesIO(bytes([i + 1]) * info.size))
        for kind, name, target in (
            (tarfile.SYMTYPE, "a/symbolic.png", "0.png"),
            (tarfile.LNKTYPE, "a/hard.png", "a/1.png" if form == "ustar" else names[-2]),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_the_members_are_those_of_tarfile(tmp_path, form):
    path = pack(tmp_path / "x.tar", form)
    found, headers = members_of(path)
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as tar:
        expected = tar.getmembers()
    assert [(m.name, m.size, m.start) for m in found] == [(m.name, m.size, m.offset_data) for m in expected]
    kinds = ["folder", *["file"] * (len(found) - 3), "other", "link"]
    assert [m.kind for m in found] == kinds
    assert found[-1].target == expected[-1].linkname
    assert [m.is_utf8 for m in found] == ["path" in m.pax_headers for m in expected]
    assert headers.has_end


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar program")
@pytest.mark.parametrize("form", ["gnu", "posix", "v7", "oldgnu"])
def test_archives_of_the_tar_program(tmp_path, form):
    """With a sparse file of many parts, whose list takes several headers."""
    for name in ("a", "b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        (tmp_path / "x" / name / "0.png").write_bytes(name.encode() * 700)
    with (tmp_path / "x" / "a" / "sparse.png").open("wb") as file:
        for i in range(60):
            file.seek(i << 17)
            file.write(b"x" * 4096)
    sparse = ["--sparse"] if form != "v7" else []
    command = ["tar", "-C", tmp_path, f"--format={form}", *sparse, "-cf", tmp_path / "x.tar", "x"]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        pytest.skip(f"this tar has no format {form}")
    found, headers = members_of(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        expected = {m.name.rstrip("/"): m for m in tar.getmembers()}
    names = {m.name.rstrip("/"): m for m in found if m.name.endswith(("/0.png", "x/a", "x/b", "/"))}
    for name in ("x/a/0.png", "x/b/0.png"):
        assert (names[name].size, names[name].start) == (700, expected[name].offset_data)
    assert len(found) == len(expected)
    assert headers.has_end
    data = open_data(tmp_path / "x.tar")
    assert any("not regular files" in note for note in data.notes) == bool(sparse)


def header_places(path):
    with tarfile.open(path) as tar:
        return [m.offset for m in tar.getmembers()]


@pytest.mark.parametrize("form", FORMATS)
def test_a_flipped_bit_in_a_header_is_found_or_without_effect(tmp_path, form):
    path = pack(tmp_path / "x.tar", form, odd=False)
    raw, places = path.read_bytes(), header_places(path)
    expected, rng, found, named = members_of(path)[0], random.Random(0), 0, True
    for _ in range(200):
        place, bit = rng.choice(places), rng.randrange(8 * BLOCK)
        damaged = bytearray(raw)
        damaged[place + bit // 8] ^= 1 << bit % 8
        stream = io.BytesIO(damaged)
        try:
            assert list(TarHeaders(stream, skip_in_stream(stream))) == expected
        except TarDamageError as error:
            found += 1
            named &= f"byte {place:,} is damaged" in str(error)
    assert named
    assert found > 190  # of the rest, the bit is in the padding of the checksum


def test_a_lost_header_is_an_error_that_names_its_place(tmp_path):
    path = pack(tmp_path / "x.tar", "pax", odd=False)
    raw, places = path.read_bytes(), header_places(path)
    for place in places[1:-1]:  # zeros in place of the last header, of a link, are the end
        path.write_bytes(raw[:place] + bytes(BLOCK) + raw[place + BLOCK :])
        with pytest.raises(DataError, match=rf"zeros at byte {place:,} end the archive, but data follow"):
            open_data(path)
        path.write_bytes(raw[: place + 100])
        with pytest.raises(DataError, match=rf"within the header at byte {place:,}: it is truncated"):
            open_data(path)
    path.write_bytes(raw[: places[4] + BLOCK + 20])
    with pytest.raises(DataError, match=r"within the file whose content starts at byte .*: it is truncated"):
        open_data(path)
    path.write_bytes(raw + raw)
    with pytest.raises(DataError, match=rf"data follow at byte {len(raw):,}: .* or several archives were"):
        open_data(path)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize(("zeros", "has_note"), [(0, True), (BLOCK, True), (2 * BLOCK, False), (9999, False)])
def test_a_missing_end_is_a_warning(tmp_path, suffix, zeros, has_note):
    packed = pack(tmp_path / "x.tar", "pax", odd=False)
    end = header_places(packed)[-1] + BLOCK
    raw = packed.read_bytes()[:end] + bytes(zeros)
    path = tmp_path / f"y.{suffix}"
    path.write_bytes(gzip.compress(raw) if suffix == "tar.gz" else raw)
    data = open_data(path)
    assert len(data.splits["all"]) == 5
    assert any("no end-of-archive marker" in note for note in data.notes) == has_note


def header(name, kind, size):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [MAX_EXTENSION + 1, 1 << 33, 1 << 62])
def test_long_names_are_bounded(kind, size):
    stream = io.BytesIO(header("x", kind, size) + bytes(4096))
    with pytest.raises(TarDamageError, match=r"byte 0 is not usable \(it states .* the limit is 1,048,576"):
        list(TarHeaders(stream, skip_in_stream(stream)))


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (b"9 size=x\n", "a size of 'x'"), (b"30 size=" + b"9" * 21 + b"\n", "a size of '999"),
        (b"12 size=-1\n\n", "a size of"), (b"6 path\n", "no key|wrong length"),
        (b"99 path=x\n", "wrong length"),
        (b"x path=x\n", "no record"), (b"2 \n", "no key|wrong length"), (b"0 path=x\n", "wrong length"),
    ],
)  # fmt: skip
def test_damaged_pax_headers(records, why):
    stream = io.BytesIO(header("x", tarfile.XHDTYPE, len(records)) + records.ljust(BLOCK, b"\0"))
    with pytest.raises(TarDamageError, match=rf"pax header at byte 0 is damaged \(.*({why})"):
        list(TarHeaders(stream, skip_in_stream(stream)))


def test_sizes_beyond_the_file():
    """A size of base 256, a negative one, and lists of a sparse file that never end."""
    for size, why in ((1 << 70, "truncated"), (-5, "a negative size")):
        block = bytearray(header("x.png", tarfile.REGTYPE, 0))
        block[124:136] = (
            (size + (1 << 96)).to_bytes(12, "big") if size < 0 else b"\x80" + size.to_bytes(11, "big")
        )
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
        stream = io.BytesIO(bytes(block) + bytes(2048))
        with pytest.raises(TarDamageError, match=why):
            list(TarHeaders(stream, skip_in_stream(stream)))
    block = bytearray(header("x.png", tarfile.GNUTYPE_SPARSE, 0))
    block[482] = 1
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    stream = io.BytesIO(bytes(block) + b"\1" * (BLOCK * 70_000))
    with pytest.raises(TarDamageError, match="too many sparse headers"):
        list(TarHeaders(stream, skip_in_stream(stream)))


def test_a_hole_after_the_end_takes_no_time(tmp_path):
    path = pack(tmp_path / "x.tar", "pax", odd=False)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    _, headers = members_of(path)
    assert headers.has_end


def test_gzip_bombs_use_little_memory(tmp_path):
    """100 million blanks in 100 kB, as a member, and as something that is skipped."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    content = gzip.compress(b" " * 100_000_000, 1)
    for kind in (tarfile.REGTYPE, b"Z"):
        start = gzip.compress(header("a/x.png", kind, 100_000_000))
        (tmp_path / "x.tar.gz").write_bytes(start + content)
        with pytest.raises(DataError, match=r"decompress to .* beyond 64 MiB, at most 100 times"):
            archives.open_archive(tmp_path / "x.tar.gz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB
