"""Every field of every kind of metadata, set to 30 absurd values: refused, or of no harm."""

import copy
import dataclasses
import json
import math
import warnings

import pytest
from exact_resume import start_and_crash
from harness import MOST_MEMORY, Peak
from test_fuzz_models import classifier_bundle, translator_bundle, use

from striate import strict_json, tensor_file
from striate.errors import DataError, StriateError, StriateWarning
from striate.tasks import entry
from striate.tasks.classification.config import ClassificationConfig
from striate.training import checkpoint
from striate.training.config_file import config_text, read_config
from striate.training.facts import require_valid

MISSING = object()
ABSURD = (
    MISSING, None, True, False, -1, 0, 1, 2, 9, 1000, 2**31, 2**63, 10**20, 10**400, 1.5, -0.5, 1e308, 1e-320,
    math.nan, math.inf, "", "a", "a\0\n\x1b[2J", "9" * 5000, "\ud800", [], [None], ["a"] * 1000, {},
    {"a": {}},
)  # fmt: skip


def changed(value):
    """Copies of a JSON value with each of its parts set to each absurd value, and the path of the part."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(parts)[:12]:
        for absurd in ABSURD:
            if type(absurd) is type(part) and absurd == part:
                continue
            other = copy.copy(value)
            if absurd is MISSING:
                del other[key]
            else:
                other[key] = absurd
            yield f"{key}", absurd, other
        for path, absurd, inner in changed(part):
            other = copy.copy(value)
            other[key] = inner
            yield f"{key}.{path}", absurd, other
    if isinstance(value, dict):
        yield "unknown", 1, {**value, "unknown": 1}


def every(cases, step):
    """All cases, or every `step`-th of them."""
    return (case for number, case in enumerate(cases) if number % step == 0)


def require_no_bug(cases, try_one):
    """Try cases; returns the names of the fields that were accepted. Only a StriateError may be raised."""
    peak, accepted, errors = Peak(), [], []
    for path, absurd, value in cases:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", StriateWarning)
                try_one(value)
            accepted.append(path)
        except StriateError as error:
            errors.append(str(error))
        except BaseException:
            print(path, repr(absurd)[:100])
            raise
    assert peak.grown() < MOST_MEMORY
    assert not [error for error in errors if "\n" in error]
    return accepted


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 37])
@pytest.mark.parametrize("make", [classifier_bundle, translator_bundle])
def test_descriptions_of_bundles(tmp_path, make, step):
    path = tmp_path / "x.safetensors"
    make(path)
    header, content = tensor_file.read_header(path, ""), path.read_bytes()
    description = strict_json.loads(header.metadata["striate"])

    def try_one(values):
        metadata = {"format": "pt", "striate": json.dumps(values)}
        path.write_bytes(tensor_file.header_bytes(header.table, metadata) + content[header.start :])
        use(path)

    accepted = require_no_bug(every(changed(description), step), try_one)
    assert not [name for name in accepted if name.startswith(("task", "architecture", "unknown"))]


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 97])
def test_tables_of_tensors(tmp_path, step):
    path = tmp_path / "x.safetensors"
    classifier_bundle(path)
    header, content = tensor_file.read_header(path, ""), path.read_bytes()
    values = {"__metadata__": {"striate": header.metadata["striate"]}, **header.table}

    def try_one(table):
        text = json.dumps(table).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[header.start :])
        use(path)

    assert set(require_no_bug(every(changed(values), step), try_one)) <= {"__metadata__.unknown"}


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 41])
@pytest.mark.parametrize("task", ["classification", "seq2seq"])
def test_configurations_of_runs(tmp_path, task, step):
    kind = entry(task).find("config")
    values = {"format": 3, "data": "x", **kind("x").to_json(), "task": task}

    def try_one(values):
        try:
            text = config_text(values).encode()
        except ValueError:  # a number of more digits than Python writes
            text = b"task: classification\ndata: x\nlr: " + b"9" * 5000
        (tmp_path / "config.yaml").write_bytes(text)
        read_config(tmp_path, lambda name: entry(name).find("config"))

    require_no_bug(every(changed(values), step), try_one)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 31])
def test_facts_of_checkpoints(few_colors, tmp_path, step):
    run = start_and_crash(few_colors, tmp_path, 3)
    found, _ = checkpoint.newest(run)
    facts = {"values": found.values, "facts": found.facts}

    def try_one(changed_facts):
        try:
            read = strict_json.loads(json.dumps(changed_facts))
        except ValueError as error:  # `read` reports it
            raise DataError(str(error)) from error
        values, facts = read.get("values"), read.get("facts")
        require_valid(dataclasses.replace(found, values=values, facts=facts), ClassificationConfig)

    require_no_bug(every(changed(facts), step), try_one)
