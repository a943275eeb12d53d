"""Files of options: plain values with their lines; test_config_file.py has damaged ones."""

import pytest
import yaml

from striate import strict_yaml
from striate.errors import DataError
from striate.training.config_file import config_text

VALUES = {
    "data": "a b", "list": [1, 2.5, None, "x"], "flag": True, "none": None, "small": 1e-05, "text": "1e3",
    "odd": "a\x85b\n'\"", "empty": [], "nested": {"a": [1]},
}  # fmt: skip


def test_values_and_lines(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(config_text(VALUES), "utf-8")
    found = strict_yaml.read(path)
    assert found.values == VALUES == yaml.safe_load(path.read_text("utf-8"))
    text = path.read_text("utf-8").splitlines()
    assert all(text[line - 1].startswith(f"{name}:") for name, line in found.lines.items())
    assert str(found.error("flag", "no")).startswith(f"{path}:{found.lines['flag']}: no")


def test_a_file_that_is_too_large(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"a: 1\n" * 300_000)
    with pytest.raises(DataError, match=r"1,500,000 bytes; the limit"):
        strict_yaml.read(tmp_path / "c.yaml")
