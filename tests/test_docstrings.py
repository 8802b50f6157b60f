"""The examples in docstrings: what they print is what they say."""

import doctest
import importlib

import pytest
from conftest import ROOT

import jfb_tutorial

WITH_EXAMPLES = [path for path in sorted((ROOT / "jfb_tutorial").rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_print_what_they_say(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed  # what differs is in the captured output


def test_the_names_that_a_reader_meets_first_have_an_example():
    for module, name in (("toy", "solve"), ("toy", "iterate"), ("theory", "antieigenvalue"), ("bench", "compare")):
        assert ">>> " in getattr(importlib.import_module(f"{jfb_tutorial.__name__}.{module}"), name).__doc__
