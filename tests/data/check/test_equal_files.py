"""Files of equal content are found, and no others."""

import itertools
from pathlib import Path

import pytest

from striate.data.check.equal_files import equal_files
from striate.transforms import many_files


@pytest.mark.parametrize("is_native", [True, False])
def test_only_files_of_equal_content_are_equal(tmp_path, monkeypatch, is_native):
    if not is_native:
        monkeypatch.setattr(many_files, "native", lambda: None)
    contents = [
        b"x" * 70_000, b"4", b"x" * 69_999 + b"y", b"", b"x" * 70_000, b"5", b"", b"4", b"4", b"y" * 70_000,
    ]  # fmt: skip
    contents += [bytes([n % 7]) * (1 + n % 3) for n in range(600)]
    paths = [str(tmp_path / f"{i}") for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        Path(path).write_bytes(content)
    paths.append(str(tmp_path / "absent"))
    in_order = sorted((content, i) for i, content in enumerate(contents) if content)
    groups = [[i for _, i in own] for _, own in itertools.groupby(in_order, lambda pair: pair[0])]
    found = equal_files(paths, seconds=60)
    assert sorted(found) == sorted(group for group in groups if len(group) > 1)
    assert equal_files(paths, seconds=-1) == []
