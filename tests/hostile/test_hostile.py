"""Every command and public function in hostile environments: at most an error of Striate, no traceback."""

import contextlib
import importlib
import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from environments import COMMON, FACTORS, bad_paths, pairwise, variables
from options import OPTIONS, VALUES, words
from targets import COMMANDS, FUNCTIONS, PACKAGES, PASSIVE, Material

from striate import cli

HERE = Path(__file__).parent
ACCEPTED = {0, 1, 2, 3, 4}  # docs/start.md has the meanings
# With 8 MiB left, a new thread may find no memory for its own data: Python prints this, or glibc ends all.
NO_THREAD = (
    "Exception ignored in thread started by: <object repr() failed>\nMemoryError",
    "cannot allocate memory for thread-local data: ABORT",
    "failed to register TLS destructor: out of memory",
)
TEXTS = ("Traceback", "internal error", "Error in sys.excepthook", "Exception ignored")

# Functions print nothing, and some packages read and write no files.
COMPUTING = ("striate.anatomy", "striate.models", "striate.transforms")
TARGETS = {name: tuple(FACTORS) for name in COMMANDS} | {
    name: ("limit", "torch")
    if name in COMPUTING
    else tuple(factor for factor in FACTORS if factor != "streams")
    for name in FUNCTIONS
}
ARRAY = list(pairwise(TARGETS))
USUAL = {factor: levels[0] for factor, levels in FACTORS.items()}
# In most cells the first obstacle hides the others, so each level also meets a command alone.
QUICK = ("predict", "check", "seq2seq translate", "weights import", "export", "anatomy", "resume")
ALONE = [
    (QUICK[number % len(QUICK)], {**USUAL, factor: level})
    for number, (factor, level) in enumerate((f, level) for f in FACTORS for level in FACTORS[f][1:])
]


def command_names():
    for name, entry in cli.COMMANDS.items():
        yield from [name] if isinstance(entry, cli.Command) else (f"{name} {sub}" for sub in entry)


def test_all_commands_and_public_functions_are_targets():
    assert set(COMMANDS) == set(command_names())
    for package in PACKAGES:
        public = set(importlib.import_module(package).__all__)
        tested = {
            name
            for group, functions in FUNCTIONS.items()
            for name in functions
            if group in (package, f"{package}.{name}")
        }
        assert tested | PASSIVE[package] == public, f"complete tests/hostile/targets.py for {package}"


def test_the_array_covers_all_pairs():
    """Brute force: each target with each level, and each two levels of two factors."""
    alone = {(target, item) for target, cell in ARRAY for item in cell.items()}
    for target, factors in TARGETS.items():
        assert all((target, (f, level)) in alone for f in factors for level in FACTORS[f])
    together = {frozenset(two) for _, cell in ARRAY for two in itertools.combinations(cell.items(), 2)}
    for one, other in itertools.combinations(FACTORS, 2):
        for two in itertools.product(FACTORS[one], FACTORS[other]):
            assert frozenset(zip((one, other), two, strict=True)) in together


@pytest.fixture(scope="session")
def material(tmp_path_factory, few_colors, run, text_run, reversed_words):
    root = tmp_path_factory.mktemp("material")
    return Material.make(root, few_colors, run.training.folder, text_run.folder, reversed_words)


@pytest.fixture(scope="session")
def hostile(material, tmp_path_factory):
    """Call a target in a cell, in a child of a process that has loaded Striate; returns what it answers."""
    root, numbers = tmp_path_factory.mktemp("cells"), itertools.count()
    program = [sys.executable, HERE / "child.py"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def call(target, cell, line=None):
            number = next(numbers)
            order = {
                "target": target, "cell": cell, "number": number, "folder": str(root / str(number)),
                "harmless": is_harmless(cell), "material": vars(material), "words": line,
            }  # fmt: skip
            print(json.dumps(order), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield call


def is_harmless(cell):
    return all(level == FACTORS[factor][0] for factor, level in cell.items())


def faults(hostile, cells):
    """The cells in which a target ends otherwise than it may."""
    for target, cell in cells:
        answer = hostile(target, cell)
        if cell.get("limit") == "memory" and answer["code"] < 0:
            answer = hostile(target, cell)  # a crash of Python in such a thread depends on the moment
        code, text = answer["code"], answer["text"]
        if any(words in text for words in NO_THREAD) and cell.get("limit") == "memory":
            continue
        if code not in ACCEPTED or any(words in text for words in TEXTS):
            unusual = {factor: level for factor, level in cell.items() if level != FACTORS[factor][0]}
            yield f"{target} {unusual}: code {code}\n{text}"


@pytest.mark.parametrize("target", TARGETS)
def test_no_bug_and_no_traceback(target, hostile):
    found = list(faults(hostile, [(name, cell) for name, cell in ARRAY + ALONE if name == target]))
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_all_pairs_alone(target, hostile):
    """Each level of each factor with each level of each other factor, and nothing else that is hostile."""
    factors = TARGETS[target]
    cells = [
        {**{factor: USUAL[factor] for factor in factors}, one: first, other: second}
        for one, other in itertools.combinations(factors, 2)
        for first, second in itertools.product(FACTORS[one], FACTORS[other])
    ]
    found = list(faults(hostile, [(target, cell) for cell in cells]))
    assert not found, "\n".join(found[:20])


PROGRAMS = [
    (target, factor, level)
    for target in COMMANDS
    for factor, levels in FACTORS.items()
    for level in levels[factor != "streams" :]
    if factor != "torch"  # which only Python code sets
]


@pytest.mark.slow
@pytest.mark.parametrize("target", COMMANDS)
def test_fresh_processes(target, material, tmp_path):
    """Each level of each factor from the very start of a program, when Python itself and torch are loaded."""
    found = []
    for number, (_, factor, level) in enumerate(row for row in PROGRAMS if row[0] == target):
        folder = tmp_path / str(number)
        folder.mkdir()
        code, text = run_program(target, {factor: level}, material, folder, number)
        if code not in ACCEPTED or any(words in text for words in TEXTS):
            found.append(f"{target} {factor} {level}: code {code}\n{text}")
    assert not found, "\n".join(found)


def run_program(target, cell, material, folder, number):
    """Run a command in a process of its own; returns its exit code and standard error."""
    material = material.replaced(**{"out": str(folder / "out"), **bad_paths(cell, folder, number)})
    lines = COMMANDS[target]
    words = [word.format(**vars(material)) for word in lines[number % len(lines)].split()]
    streams = cell.get("streams", "utf-8")
    environment = os.environ | COMMON
    for changes in (cell.get("settings", "usual"), f"cache {cell.get('cache', 'usual')}"):
        environment |= variables(changes, folder)
    if streams in ("ascii", "latin-1"):
        environment["PYTHONIOENCODING"] = streams
    (folder / "stdin").write_bytes(b"\xff\xfe \n\x80\n" if streams == "stdin bytes" else b"")
    paths = {"stdin": folder / "stdin", "stdout": folder / "stdout", "stderr": folder / "stderr"}
    if (full := streams.removesuffix(" full")) in paths:
        paths[full] = Path("/dev/full")
    closed = [n for n, stream in enumerate(paths) if streams in (f"{stream} closed", "all closed")]

    def prepare():
        for descriptor in closed:
            os.close(descriptor)
        limit_program(cell.get("limit", "none"))

    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(path.open("rb" if name == "stdin" else "wb"))
            for name, path in paths.items()
        }
        done = subprocess.run(
            [sys.executable, "-m", "striate", *words], cwd=folder, preexec_fn=prepare, timeout=600, **files,
            env={name: value for name, value in environment.items() if value is not None},
        )  # fmt: skip
    kept = folder / "stderr"
    return done.returncode, kept.read_text("utf-8", "replace") if kept.exists() else ""


def limit_program(level):
    kinds = {
        "memory": (resource.RLIMIT_AS, 2 << 30), "more memory": (resource.RLIMIT_AS, 4 << 30),
        "descriptors": (resource.RLIMIT_NOFILE, 12), "no files": (resource.RLIMIT_FSIZE, 0),
        "small files": (resource.RLIMIT_FSIZE, 4096),
    }  # fmt: skip
    if level in kinds:
        kind, value = kinds[level]
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def test_no_cell_names_what_belongs_to_the_machine(tmp_path):
    """Outputs and caches are in the folders of the tests: commands write there, clear and replace."""
    for number, (factor, level) in enumerate((f, level) for f in FACTORS for level in FACTORS[f]):
        folder = tmp_path / str(number)
        folder.mkdir()
        out = bad_paths({factor: level}, folder, number).get("out", "x")
        assert not out.startswith("/dev")
        if factor == "settings":
            changed = variables(level, folder)
            homeless = changed.get("HOME", "") is None
            assert not (homeless and changed.get("XDG_CACHE_HOME", "") is None)


LIMITS = {**USUAL, "limit": "12 GB"}
MOST_SECONDS, MOST_BYTES = 60, 2 << 30


def option_faults(call, cases):
    for command, flag, value in cases:
        answer = call(command, LIMITS, words(command, flag, value))
        bad = answer["code"] not in ACCEPTED or any(text in answer["text"] for text in TEXTS)
        if bad or answer["seconds"] > MOST_SECONDS or answer["bytes"] > MOST_BYTES:
            shown = {**answer, "text": answer["text"][-300:]}
            yield f"striate {command} ... {flag}={value[:30]}: {shown}"


# Numbers are refused before any work; of the others, each command has one that a value meets.
QUICK = [
    (command, flag, VALUES[i % len(VALUES)])
    for i, (command, flag, is_number) in enumerate(OPTIONS)
    if is_number and VALUES[i % len(VALUES)] not in ("0", "")
]


def test_numbers_of_options_out_of_range(hostile):
    found = list(option_faults(hostile, QUICK))
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({command for command, _, _ in OPTIONS}))
def test_all_values_of_options(command, hostile):
    cases = [(name, flag, value) for name, flag, _ in OPTIONS if name == command for value in VALUES]
    found = list(option_faults(hostile, cases))
    assert not found, "\n".join(found)
