"""All pages share one template: they fit a phone, and numbers look the same everywhere."""

import ast
import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import needs_chromium
from PIL import Image
from write_tiffs import write_tiff

from striate import charts, cli, sections
from striate.anatomy import trace
from striate.data.check import KINDS, check
from striate.errors import DecodeError
from striate.report import anatomy_page, check_page, messages, page, templates
from striate.report.templates import number
from striate.transforms import decode

LONG = "a_name_without_any_space_" * 6


def run_page(run, tmp_path):
    return run.report.read_text("utf-8")


def seq2seq_page(run, tmp_path):
    tokens = tuple("abcdefghij" * 4)
    attention = charts.AttentionMap(tokens, tokens, np.eye(40), alt="")
    columns = tuple(map(sections.Column, ("source", "answer", "reference")))
    table = sections.Table(columns, ((LONG, LONG, LONG), ("a " * 99, "b " * 99, "c " * 99)))
    found = (sections.Section("Attention", (attention, attention)), sections.Section("Answers", (table,)))
    return page.render(sections.Report(LONG, LONG, found, warnings=(LONG,), commands=(LONG,), config=LONG))


def detection_page(run, tmp_path):
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "bbox": [9 * i, 9, 8, 8], "area": 64, "iscrowd": 0}
            for i in range(1, 13)
        ],
        "categories": [{"id": i, "name": f"{LONG}{i}"} for i in range(1, 13)],
    }
    found = [
        {"image_id": 1, "category_id": i, "bbox": [9 * i, 9, 8, 8], "score": 0.05 * i} for i in range(1, 13)
    ]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(found))
    files = [str(tmp_path / name) for name in ("gt.json", "dt.json")]
    assert cli.run(["detection", *files, "--out", str(tmp_path), "--bootstrap", "20"]) == 0
    return (tmp_path / "report.html").read_text("utf-8")


def checked_page(run, tmp_path):
    for name in ("one", LONG):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (90, 60), (80 * i, 9, 9)).save(tmp_path / "data" / name / f"{LONG}{i}.png")
    (tmp_path / "data" / "one" / f"{LONG}.png").write_bytes(b"")
    return check_page.render(check(tmp_path / "data"))


def page_of_a_network(run, tmp_path):
    return anatomy_page.render(trace("mobilenet_v3_small"))


def test_numbers_for_readers():
    assert number(None, ".3f") == "\N{EN DASH}"
    assert number("text", ".3f") == "text"
    assert number(0.1234, ".1%") == "12.3\N{NO-BREAK SPACE}%"
    assert number(12345, ",d") == "12,345"


SOURCES = Path(templates.__file__).parents[1]


def phrases():
    """The templates of all phrases of the Python sources, without the formats of their values."""
    files = [
        *SOURCES.glob("report/*.py"),
        *SOURCES.glob("tasks/*/*.py"),
        *SOURCES.glob("studies/*.py"),
        *SOURCES.glob("data/check/*.py"),
    ]
    calls = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    for call in calls:
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Phrase":
            for part in ast.walk(call.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield re.sub(r"\{(\w+)(:[^}]*)?\}", r"{\1}", part.value)


def test_every_phrase_has_a_chinese_text_with_the_same_values():
    chinese = templates.translations()
    scripts = "".join(file.read_text("utf-8") for file in SOURCES.glob("report/script/*.js"))
    html = "".join(file.read_text("utf-8") for file in SOURCES.glob("report/*.html"))
    in_scripts = re.findall(r'\b(?:t|label|pair)\("([^"]+)"', scripts) + re.findall(
        r'\), "([A-Z][^"]+)"[,)]', scripts
    )
    in_scripts += re.findall(r'\["\w*", "([^"]+)"\]', scripts)
    wanted = {*phrases(), *re.findall(r'"([^"]+)"\|phrase\b', html), *in_scripts}
    assert {text for text in wanted if text not in chinese} == set()
    everything = scripts + html + "".join(file.read_text("utf-8") for file in SOURCES.rglob("*.py"))
    everything = everything.lower()
    assert len(wanted) > 100
    for english, translated in chinese.items():
        values = [sorted(set(re.findall(r"\{(\w+)\}", text))) for text in (english, translated)]
        assert values[0] == values[1], english
    unused = {
        text for text in chinese if re.split(r"[{%\"(]", text)[0][:60].lower().rstrip(": ") not in everything
    }
    assert {
        text for text in unused if not re.fullmatch(r"(train|val|test|out-of-fold) images|95\xa0.*", text)
    } == set()


def test_every_text_of_a_detection_page_is_a_phrase(run, tmp_path):
    text = detection_page(run, tmp_path)
    assert re.search(r'<p class="soft"><span data-t', text)
    assert not re.search(r'<p class="soft">(?!<span data-t)', text)
    assert "<h1><span data-t" in text
    assert re.search(r"<td><span data-t=[^>]*>small</span>", text)


def test_names_that_are_words_of_the_page_are_not_translated():
    names = ("train", "image", "background")
    matrix = charts.ConfusionMatrix(names, np.eye(3, dtype=int), alt="")
    heading = sections.Phrase("Errors")
    text = page.render(sections.Report("data", "model", (sections.Section(heading, (matrix,)),)))
    assert '<th scope="col" class="number">train</th>' in text
    assert re.search(r"<h2><span data-t=[^>]*Errors[^>]*>Errors</span></h2>", text)
    assert "<h1>data</h1>" in text


# Texts of two or more English words, except those of code, names and values, which are never translated.
ENGLISH = """(() => {
  const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const kept = "pre, code, dd, option, script, style, td.name, .path, .cap, .guess, .token, #rows, footer";
  const isEnglish = text => /[A-Za-z]{2,}[,:;]? [A-Za-z]{2,}/.test(text) && !/[\\u4e00-\\u9fff]/.test(text);
  while (walker.nextNode()) {
    const node = walker.currentNode, text = node.textContent.replace(/`[^`]*`/g, "").trim();
    if (!node.parentElement.closest(kept) && isEnglish(text)) found.add(text);
  }
  for (const node of document.querySelectorAll("[aria-label], [placeholder]")) {
    for (const name of ["aria-label", "placeholder"]) {
      const text = node.getAttribute(name) || "";
      if (!node.closest(kept) && isEnglish(text)) found.add(text);
    }
  }
  return [...found];
})()"""


def warned_page(run, tmp_path):
    """A report whose warnings are those of real runs."""
    report = sections.Report(
        "x", "y", (), warnings=(
            "only 4 optimizer steps in total: too few to learn much (try more --epochs)",
            "weights/a.pth: 58 of 60 tensors loaded; initialized at random: fc.weight, fc.bias",
            "the same image in two classes: 'a/1.jpg' and 'b/2.jpg', and 3 more; images that are in two "
            "splits (data leakage): 'c.png' and 'd.png'. Run `striate check photos` for details",
            "the same image with different classes: 'a.jpg' and 'b.jpg'. Run `striate check t` for details",
            "1 class without images counts as 0 in mAP and macro F1",
            "1,203 parameters are trained (fc.weight, fc.bias), 11,176,512 are frozen",
            "weights averaged over the last 3 epochs: val loss 0.3  val top1 0.9, kept as the best",
            "images have several classes (labels separated by ';'): 91 labels of 3 classes for 72 images",
            "20 of 20 answers were cut off at the maximum length",
            "test-time augmentation: the mean scores of the image and its mirror image",
            "2 images are left out, as problems.csv says: 1 exact-duplicate, 1 blurred",
            "the labels are the numbers 1 to 5: each is the name of a class, and their order has no meaning "
            "(regression and ordinal targets are not supported)",
        ),
    )  # fmt: skip
    return page.render(report)


PAGES = [run_page, seq2seq_page, detection_page, checked_page, page_of_a_network, warned_page]


@needs_chromium
@pytest.mark.parametrize("make", PAGES)
def test_pages_fit_a_phone_and_have_no_english_in_chinese(run, tmp_path, browser, make):
    text = make(run, tmp_path)
    assert "prefers-color-scheme: dark" in text
    (tmp_path / "page.html").write_text(text, "utf-8")
    browser.open(f"{(tmp_path / 'page.html').as_uri()}#lang=en")
    assert browser.overflow(360) == 0
    browser.click("#language")
    assert browser.evaluate("document.documentElement.lang") == "zh-CN"
    assert browser.evaluate(ENGLISH) == []
    assert browser.overflow(360) == 0
    browser.evaluate("localStorage.clear()")
    assert browser.errors == []


def test_messages_of_data_checks_are_known():
    for kind in KINDS.values():
        for text in (kind.severity, kind.title, kind.advice):
            assert isinstance(messages.phrase_of(text), sections.Phrase), text


def test_reasons_of_unreadable_images_are_known(tmp_path):
    (tmp_path / "text").write_text("not an image")
    (tmp_path / "page").write_text("<html></html>")
    (tmp_path / "empty").write_bytes(b"")
    Image.fromarray(np.full((4, 4), -1.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:1000])
    (tmp_path / "bad.png").write_bytes(content[:60] + bytes(200) + content[260:])
    (tmp_path / "bands.tif").write_bytes(write_tiff(np.zeros((4, 4, 6), np.uint8)))
    (tmp_path / "a.png").unlink()
    for path in tmp_path.iterdir():
        with pytest.raises(DecodeError) as caught:
            decode.decode(path)
        assert isinstance(messages.phrase_of(caught.value.why), sections.Phrase), caught.value


def test_a_message_is_the_same_text_with_values():
    phrase = messages.phrase_of("class 'a b' has no training images: its 1,234 other images are left out")
    assert phrase == "class 'a b' has no training images: its 1,234 other images are left out"
    assert phrase.values == {"name": "'a b'", "count": "1,234"}
    nested = messages.phrase_of("GIF among 397 JPEG; 94 % of the pixels have one shade")
    assert nested.values["other_text"].values == {"count": "94"}
    unknown = "a class named {count} images"
    assert messages.phrase_of(unknown) is unknown
    assert messages.phrase_of(3000 * "x; ") == 3000 * "x; "


def test_phrases_are_texts_with_values():
    phrase = sections.Phrase("{n:,} of {what}", n=1234, what=sections.Phrase("test images"))
    assert phrase == "1,234 of test images"
    assert (phrase.template, phrase.values) == ("{n} of {what}", {"n": "1,234", "what": "test images"})
    again = copy.deepcopy(phrase)
    assert (again, again.values["what"].template) == (phrase, "test images")
    shown = templates.translated(phrase)
    assert shown.endswith(">1,234 of test images</span>")
    assert templates.translated("<b> is no phrase") == "<b> is no phrase"  # the template escapes it
    hostile = templates.translated(sections.Phrase("{name}", name="'\"><script>"))
    assert "<script>" not in hostile
    assert "\"'" not in hostile


def test_commands_in_sentences_are_code():
    shown = templates.translated(sections.Phrase("`striate check {data}` finds more", data="<a>"))
    assert shown.endswith("><code>striate check &lt;a&gt;</code> finds more</span>")
    assert templates.translated(sections.Phrase("one ` alone")).endswith(">one ` alone</span>")
