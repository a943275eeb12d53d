"""Records of reports are light: every layer and every process can make them."""

import subprocess
import sys

import numpy as np

from striate.charts import ConfusionMatrix, Line


def test_neither_matplotlib_nor_torch_is_loaded():
    code = "import sys, striate.sections; assert not {'torch', 'matplotlib', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_records_compare_by_value_and_those_with_arrays_by_identity():
    assert Line("val", (1.0,)) == Line("val", (1.0,))
    counts = np.eye(2, dtype=int)
    one, other = (ConfusionMatrix(("a", "b"), counts, alt="") for _ in range(2))
    assert one == one
    assert one != other
