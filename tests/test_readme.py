"""The commands and the code of the README run, and both languages have the same content."""

import re
import shlex
import subprocess

import pytest
from conftest import COLORS, ROOT, make_images

from striate import cli

ENGLISH = (ROOT / "README.md").read_text("utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text("utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """The folder of the README's examples, with small images."""
    for name, color in zip(("daisy", "rose", "tulip"), COLORS.values(), strict=True):
        make_images(tmp_path / "flowers" / name, 5, color)
    monkeypatch.chdir(tmp_path)


def test_the_commands_run(flowers, capfd):
    lines = [line for line in "".join(blocks(ENGLISH, "sh")).splitlines() if line.startswith("striate ")]
    assert {line.split()[1] for line in lines} == {"train", "evaluate", "predict", "weights"}
    assert "--epochs 20" in lines[0]
    for line in [lines[0].replace("--epochs 20", "--epochs 2"), *lines[1:]]:  # shorter, otherwise unchanged
        assert cli.run(shlex.split(line)[1:]) == 0, f"{line}\n{capfd.readouterr().err}"


def test_the_python_runs(flowers, capsys):
    (code,) = blocks(ENGLISH, "python")
    exec(compile(code, "README.md", "exec"), {})
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["demo", "demo-photos", "test", "check"])
def test_the_make_targets_exist(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_table():
    for name in cli.COMMANDS:
        assert f"`striate {name}" in ENGLISH


def test_both_languages_are_equal_in_content():
    for language in ("sh", "python", "text"):
        assert blocks(ENGLISH, language) == blocks(CHINESE, language)
    for pattern in (r"^#+ ", r"^\|", r"^- ", r"!?\[.*?\]\((?!README)"):
        ours, theirs = (len(re.findall(pattern, text, flags=re.MULTILINE)) for text in (ENGLISH, CHINESE))
        assert ours == theirs, pattern
    assert re.findall(r"`[^`\n]+`", ENGLISH.split("## Commands")[1].split("## Python")[0]) == re.findall(
        r"`[^`\n]+`", CHINESE.split("## 命令")[1].split("## Python")[0]
    )


PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
