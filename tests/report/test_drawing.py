"""Figures are the same whatever the user's settings of matplotlib."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from striate import charts
from striate.report import anatomy_figures, figures

PROGRAM = """
import sys
from striate import charts
from striate.report import figures
curves = charts.Curves((1, 2), (charts.Panel("Loss", (charts.Line("train", (0.5, 0.2)),)),), 1, alt="")
sys.stdout.buffer.write(figures.png(figures.draw(curves)))
"""


def curves() -> bytes:
    panel = charts.Panel("Loss", (charts.Line("train", (0.5, 0.2)),))
    return figures.png(figures.draw(charts.Curves((1, 2), (panel,), 1, alt="")))


USER = {
    "text.usetex": True, "figure.dpi": 300, "savefig.dpi": 30, "axes.facecolor": "black", "font.size": 30,
    "savefig.transparent": True, "lines.linewidth": 9, "figure.constrained_layout.h_pad": 1,
}  # fmt: skip


def test_settings_of_the_process_change_nothing(tmp_path):
    def draw(path):
        image, heat = np.zeros((8, 8, 3), np.uint8), np.eye(8)
        anatomy_figures.save(anatomy_figures.effective_field(image, heat, ((0, 3), (0, 3)), "$x"), path)
        return path.read_bytes()

    expected = curves(), draw(tmp_path / "default.png")
    with matplotlib.rc_context(USER):
        assert (curves(), draw(tmp_path / "user.png")) == expected
        assert matplotlib.rcParams["text.usetex"], "the user's settings are back"


@pytest.mark.parametrize(
    ("rc", "backend"),
    [
        (b"text.usetex: True\nfont.size: 40\nnonsense\nno.such.key: 1\n", ""),
        (b"axes.titlesize: \xff\n", "module://matplotlib_inline.backend_inline"),
    ],
    ids=["valid", "broken"],
)
def test_settings_in_files_and_variables_change_nothing(rc, backend, tmp_path):
    """Both the file in the working folder and the one that MATPLOTLIBRC names."""
    (tmp_path / "matplotlibrc").write_bytes(rc)
    environment = {**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path)}
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == curves()
