"""Native modules are used only if they were built from these sources."""

import sys
import types

from striate import native_modules


def test_a_module_of_another_version_is_not_used(monkeypatch):
    module = types.ModuleType("built_before")
    monkeypatch.setitem(sys.modules, "built_before", module)
    assert native_modules.load("built_before", 1) is None
    module.VERSION = 1
    assert native_modules.load("built_before", 1) is module
    assert native_modules.load("built_before", 2) is None
    assert native_modules.load("striate.never_built", 1) is None
