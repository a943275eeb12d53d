"""The one thing that pyproject.toml cannot say: the optional native kernels of detection and augmentation.

Without a compiler the build still succeeds, and the Python versions of the same functions are used.
"""

import sys

from setuptools import Extension, setup

# No fused multiply-add: results are equal to the reference evaluator's, and to Pillow's, bit for bit.
FLAGS = (
    ["/std:c++17", "/O2", "/fp:precise"]
    if sys.platform == "win32"
    else ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-pthread"]
)


def extension(name: str, sources: tuple[str, ...], headers: tuple[str, ...]) -> Extension:
    """An optional module from files of `native/`."""
    return Extension(
        name,
        sources=[f"native/{source}.cpp" for source in sources],
        depends=[f"native/{header}.hpp" for header in headers],
        language="c++",
        extra_compile_args=FLAGS,
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
        optional=True,
    )


setup(
    ext_modules=[
        extension(
            "striate.metrics.detection._native",
            ("json_columns", "matching", "module"),
            ("curves", "json_columns", "json_reader", "json_vectors", "matching", "memory", "sorting"),
        ),
        extension("striate.transforms._native", ("pixels",), ()),
    ]
)
