"""What the README shows in Python runs as it stands."""

import re

import torch
from conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_example_trains_and_converges():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) < 30
    for rule in ("JFB()", "UnrolledPhantom()", "ImplicitDifferentiation()"):
        code = example.replace("import JFB,", "import JFB, ImplicitDifferentiation, UnrolledPhantom,")
        torch.manual_seed(0)
        names: dict = {}
        exec(code.replace("gradient=JFB()", f"gradient={rule}"), names)
        assert names["network"].last.converged.all(), rule
        assert names["loss"] < 0.5, rule
