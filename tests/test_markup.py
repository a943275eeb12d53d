"""HTML for notebooks is well-formed, escapes every text, and draws numbers where they belong."""

import math
import re
from html.parser import HTMLParser

import pytest

from striate import markup

HOSTILE = '<script>alert("x")</script>\x1b[2J&'
VOID = {"img", "br", "path"}  # have no end tag here


class Checker(HTMLParser):
    """Collects the elements and the text, and checks that each element is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize(
    "part",
    [
        markup.title(HOSTILE), markup.note(HOSTILE), markup.facts({HOSTILE: HOSTILE}),
        markup.table((HOSTILE,), [(HOSTILE,)]), markup.heat_map((HOSTILE,), [[3]]),
        markup.picture(f'data:x"{HOSTILE}', HOSTILE), markup.curves(HOSTILE, [1, 2], {"a": [0.0, 1.0]}),
        markup.curves("loss", [1, 2], {HOSTILE: [0.0, 1.0], "b": [1.0, 2.0]}), markup.shown(HOSTILE),
    ],
)  # fmt: skip
def test_texts_are_escaped(part):
    checked = Checker(markup.panel(part))
    assert "script" not in {tag for tag, _ in checked.tags}
    assert "\x1b" not in part
    assert r'<script>alert("x")</script>' in "".join(checked.text)


def test_curves_span_the_chart_and_leave_gaps():
    chart = markup.curves("loss", [1, 2, 3, 4, 5], {"a": [4.0, 2.0, None, math.nan, 0.0]})
    axes, line = (attributes["d"] for tag, attributes in Checker(chart).tags if tag == "path")
    left, top, bottom, right = map(float, re.fullmatch(r"M(\d+) (\d+)V(\d+)H(\d+)", axes).groups())
    points = [tuple(map(float, point)) for point in re.findall(r"[ML]([\d.]+) ([\d.]+)", line)]
    width, height = right - left, bottom - top
    assert points == [(left, top), (left + width / 4, top + height / 2), (right, bottom)]
    assert re.sub("[^MLh]", "", line) == "MhLMh"  # with `h0`, a value without neighbors is a dot
    assert markup.curves("loss", [1], {"a": [math.inf]}) == ""


def test_bars_have_the_length_of_their_share():
    lengths = [re.findall(r"width:(\d+)px", markup.bar(share, 80))[1] for share in (0, 0.25, 1, 7, math.nan)]
    assert lengths == ["0", "20", "80", "80", "0"]


def test_counts_are_shaded_by_their_share_of_the_row():
    shades = re.findall(r"rgba\(74,143,217,([\d.]+)\)", markup.heat_map("ab", [[1, 3], [0, 0]]))
    assert [float(s) for s in shades] == pytest.approx([0.75 / 4, 0.75 * 3 / 4, 0, 0], abs=0.006)
