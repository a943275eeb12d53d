"""Without a Jupyter kernel, the default progress shows nothing and loads nothing (test_notebooks has one)."""

import copy
import pickle
import subprocess
import sys

from striate.progress import AUTO

SCRIPT = """
import sys
from striate.progress import AUTO
AUTO.begin("decoding", 10)
AUTO.advance(4, loss=0.5)
AUTO.info("a line")
AUTO.warn("another")
AUTO.end()
assert "IPython" not in sys.modules
"""


def test_scripts_and_terminals_stay_silent_and_do_not_load_ipython():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_copies_are_the_default_itself():
    assert copy.deepcopy(AUTO) is AUTO
    assert pickle.loads(pickle.dumps(AUTO)) is AUTO
