"""`init_as_pycocotools`: programs that import pycocotools get Striate's `COCO` and `COCOeval`, unchanged."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from striate.metrics.detection.coco_api import COCO
from striate.metrics.detection.coco_eval import COCOeval, Params
from striate.metrics.detection.overlaps import missing_mask_module


class PrintingCOCOeval(COCOeval):
    """`COCOeval` as pycocotools' users know it: `summarize` prints the table."""

    def __init__(
        self,
        cocoGt: Any = None,
        cocoDt: Any = None,
        iouType: str = "segm",
        print_function: Callable[[str], Any] = print,
    ) -> None:
        super().__init__(cocoGt, cocoDt, iouType, print_function)


def init_as_pycocotools() -> None:
    """Make `pycocotools.coco` and `pycocotools.cocoeval` Striate's, for all imports after this call.

    `pycocotools.mask` stays pycocotools' own. If pycocotools is not installed, the first use of one of its
    functions raises a `UsageError`.
    """
    package = _imported("pycocotools") or ModuleType("pycocotools")
    sys.modules["pycocotools"] = package
    mask = _imported("pycocotools.mask") or _no_masks()
    coco, cocoeval = ModuleType("pycocotools.coco"), ModuleType("pycocotools.cocoeval")
    coco.__dict__.update(COCO=COCO, maskUtils=mask)
    cocoeval.__dict__.update(COCOeval=PrintingCOCOeval, Params=Params, maskUtils=mask)
    for name, module in {"coco": coco, "cocoeval": cocoeval, "mask": mask}.items():
        sys.modules[f"pycocotools.{name}"] = module
        setattr(package, name, module)


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _no_masks() -> ModuleType:
    def refuse(name: str) -> Any:
        raise AttributeError(name) if name.startswith("__") else missing_mask_module()

    module = ModuleType("pycocotools.mask")
    module.__dict__["__getattr__"] = refuse
    return module
