"""The one thing that pyproject.toml cannot say: the optional native kernel of the detection metrics.

Without a compiler the build still succeeds, and the NumPy version of the same functions is used.
"""

import sys

from setuptools import Extension, setup

# No fused multiply-add: results are equal to the reference evaluator's bit for bit.
FLAGS = (
    ["/std:c++17", "/O2", "/fp:precise"]
    if sys.platform == "win32"
    else ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-pthread"]
)

setup(
    ext_modules=[
        Extension(
            "striate.metrics.detection._native",
            sources=["native/json_columns.cpp", "native/matching.cpp", "native/module.cpp"],
            depends=[
                f"native/{name}.hpp"
                for name in (
                    "curves",
                    "json_columns",
                    "json_reader",
                    "json_vectors",
                    "matching",
                    "memory",
                    "sorting",
                )
            ],
            language="c++",
            extra_compile_args=FLAGS,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            optional=True,
        )
    ]
)
