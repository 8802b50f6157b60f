"""Pictures and explorers, without a browser."""

import base64
import html
import json
import re

import matplotlib.pyplot as plt
import pytest
from conftest import match
from IPython.core.formatters import DisplayFormatter

from jfb_tutorial.pages import explorers, figures

ALT = "A line that rises from the lower left corner to the upper right one."


def draw():
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    return fig


def test_a_picture_carries_its_alternative_text():
    shown, metadata = DisplayFormatter().format(figures.show(draw(), alt=ALT.replace(" to", "\n  to")))
    assert shown["text/plain"] == ALT
    assert metadata["image/png"]["alt"] == ALT
    png = base64.b64decode(shown["image/png"])
    assert png.startswith(b"\x89PNG")
    assert b"Software" not in png
    assert not plt.get_fignums()


def test_the_same_figure_gives_the_same_bytes():
    assert figures.show(draw(), alt=ALT).png == figures.show(draw(), alt=ALT).png


@pytest.mark.parametrize(
    ("fig", "alt", "error", "words"),
    [
        (None, "", ValueError, "alt must say what the picture shows"),
        (None, "a plot", ValueError, "got 'a plot'"),
        (None, None, TypeError, "alt must be text"),
        ("axes", ALT, TypeError, "pass ax.figure"),
    ],
)
def test_a_picture_without_words_is_refused(fig, alt, error, words):
    with pytest.raises(error, match=words):
        figures.show(fig or draw(), alt=alt)
    plt.close("all")


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["BLUE", "VERMILION", "GREEN", "PURPLE", "GREY"])
def test_colours_stand_out_from_white(name):
    assert 1.05 / (luminance(getattr(figures, name)) + 0.05) >= 4.5


def test_an_explorer_carries_its_script_and_says_what_it_shows():
    explorer = explorers.cobweb(d=0.3, y0=0.1, steps=5)
    markup = explorer._repr_html_()
    parameters = match(r'data-parameters="([^"]*)"', markup).group(1)
    assert json.loads(html.unescape(parameters)) == {"d": 0.3, "y0": 0.1, "steps": 5, "fold": False}
    assert markup.count("<script>") == markup.count("</script>") == 1
    assert not re.search(r"""(src|href)=|https?://(?!www\.w3\.org/2000/svg)|type=.module""", markup)
    assert "diagonal" in repr(explorer)
    assert markup == explorers.cobweb(d=0.3, y0=0.1, steps=5)._repr_html_()


@pytest.mark.parametrize("arguments", [{"d": 0.8}, {"d": -0.1}, {"y0": 1.5}, {"steps": 61}, {"steps": -1}])
def test_an_explorer_refuses_what_its_sliders_cannot_reach(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must"):
        explorers.cobweb(**arguments)


def test_a_picture_in_the_books_style_has_twice_the_pixels_that_it_is_wide():
    with plt.rc_context(figures.style()):
        small, wide = figures.show(draw(), alt=ALT), figures.show(plt.figure(figsize=(9, 3)), alt=ALT)
    assert small.width == int.from_bytes(small.png[16:20], "big") // 2 == 480
    assert wide.width == 640  # no wider than a page
