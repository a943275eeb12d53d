"""The one thing that pyproject.toml cannot say: the optional native modules.

Without a compiler the build still succeeds, and the Python versions of the same functions are used. The
reader of many files also needs the header of zlib.
"""

import sys

from setuptools import Extension, setup

# No fused multiply-add: results are equal to the reference evaluator's, and to Pillow's, bit for bit.
FLAGS = (
    ["/std:c++17", "/O2", "/fp:precise"]
    if sys.platform == "win32"
    else ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-pthread"]
)


def extension(
    name: str, sources: tuple[str, ...], headers: tuple[str, ...] = (), libraries: tuple[str, ...] = ()
) -> Extension:
    """An optional module from files of `native/`."""
    return Extension(
        name,
        sources=[f"native/{source}.cpp" for source in sources],
        depends=[f"native/{header}.hpp" for header in headers],
        libraries=list(libraries),
        language="c++",
        extra_compile_args=FLAGS,
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
        optional=True,
    )


# Windows has neither zlib nor POSIX.
FILES = (
    []
    if sys.platform == "win32"
    else [extension("striate.transforms._files", ("many_files",), libraries=("z",))]
)

setup(
    ext_modules=[
        extension(
            "striate.metrics.detection._native",
            ("json_columns", "matching", "module"),
            ("curves", "json_columns", "json_reader", "json_vectors", "matching", "memory", "sorting"),
        ),
        extension("striate.transforms._native", ("pixels",)),
        *FILES,
    ]
)
