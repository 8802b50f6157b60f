"""The equilibrium explorer: a trained network that runs in a page, opened from disk with the network cut."""

import copy
import io
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import ROOT, grave_violations, number, rows, slider, words
from conftest import ready as ready_within
from PIL import Image
from torch import nn

from jfb_tutorial import architectures
from jfb_tutorial.pages import explorers
from jfb_tutorial.pages.explorers._program import Numbers, program
from jfb_tutorial.training import checkpoints, data
from jfb_tutorial.training.inspection import inspect

CLASSES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STEPS = 20

ready = partial(ready_within, timeout=120_000)  # the network is twenty times that of the others


@pytest.fixture(scope="module")
def trained():
    return checkpoints.load_network(ROOT / "book" / "records" / "cifar10.safetensors")


@pytest.fixture(scope="module")
def network(trained):
    """The trained network with a sixth of its channels: as many kinds of layers, and a thirtieth of the work in the page."""

    def narrow(module: nn.Module) -> nn.Module:
        for name, child in module.named_children():
            setattr(module, name, narrow(child))
        new: nn.Module
        if isinstance(module, nn.Conv2d):
            inner = module.in_channels if module.in_channels == 3 else module.in_channels // 6
            new = nn.Conv2d(
                inner,
                module.out_channels // 6,
                3,
                stride=cast(Any, module.stride),
                padding=1,
                bias=module.bias is not None,
            )
        elif isinstance(module, nn.BatchNorm2d) and module.num_features > 3:
            new = nn.BatchNorm2d(module.num_features // 6, affine=module.affine)
        elif isinstance(module, nn.Linear):
            new = nn.Linear(module.in_features // 6, module.out_features)
        else:
            return module
        wide = module.state_dict()
        new.load_state_dict({key: wide[key][tuple(map(slice, value.shape))] for key, value in new.state_dict().items()})
        return new

    return narrow(copy.deepcopy(trained)).eval()


@pytest.fixture(scope="module")
def images():
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    waves = torch.stack([y * 8, x * 8, 255 - y * 4]).to(torch.uint8)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8)
    return torch.stack([waves, noise, torch.full((3, 32, 32), 90, dtype=torch.uint8)])


def followed(network, images):
    labels = torch.zeros(len(images), dtype=torch.long)
    return inspect(network, data.Images("mine", images, labels, tuple(CLASSES)), steps=STEPS)


def upload(figure, content, wait=True):
    bring = figure.locator('input[type="file"]')
    bring.set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": content})
    if wait:
        figure.page.wait_for_function(
            "document.querySelector('.jfb-words').textContent.startsWith('Your own picture')", timeout=60_000
        )


def agrees(figure, found, image):
    shown = rows(figure)
    assert [int(row[0]) for row in shown] == list(range(STEPS + 1))
    for k in range(1, STEPS + 1):
        sure = found.confidence[k - 1, image].item()
        assert abs(int(shown[k][2].removesuffix(" %")) - 100 * sure) < 4, k  # weights of 8 bits
        if sure > 0.55:
            assert shown[k][1] == CLASSES[found.predictions[k - 1, image]], k
    residuals = [number(row[3]) for row in shown[1:]]
    assert np.allclose(np.log10(residuals[:8]), found.residuals[:8, image].log10().numpy(), atol=0.06)


def test_the_page_computes_what_the_package_does(trained, images, show_explorers):
    found = followed(trained, images)
    figure = ready(show_explorers(explorers.equilibrium(trained, images, CLASSES)))
    agrees(figure, found, 0)
    for image in (1, 2):
        figure.get_by_role("button", name="Next picture").click()
        ready(figure)
        agrees(figure, found, image)


def shake(norm, width=0.3):
    """Give a batch normalisation the statistics that no training gave it."""
    norm.running_mean.uniform_(-width, width)
    norm.running_var.uniform_(0.5, 2)


def test_any_network_of_these_layers(images, show_explorers):
    """Other widths, a damping that enters, random statistics: none of the numbers is that of the trained network."""
    torch.manual_seed(0)
    network = architectures.fast_cifar10(gamma=0.8)
    cast(Any, network.R).entering = 0.7
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            shake(module)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    figure = ready(show_explorers(explorers.equilibrium(network.eval(), images, CLASSES)))
    agrees(figure, followed(network, images), 0)


def test_steps_by_the_keyboard(network, images, show_explorers):
    figure = ready(show_explorers(explorers.equilibrium(network, images, CLASSES)))
    shown = rows(figure)
    steps = slider(figure, "steps")
    assert steps.input_value() == "20", "what was computed has been seen, and stands at its end"
    steps.press("Home")
    assert "before the first step" in words(figure)
    assert shown[0][1] in words(figure)
    steps.press("End")
    assert f"After 20 steps the network says “{shown[20][1]}” ({shown[20][2]})" in words(figure)
    width = figure.locator(".jfb-first").evaluate(
        "(bar) => bar.getBoundingClientRect().width / bar.parentNode.clientWidth"
    )
    assert abs(100 * width - int(shown[20][2].removesuffix(" %"))) < 1
    steps.press("ArrowLeft")
    assert "After 19 steps" in words(figure)
    figure.get_by_role("button", name="Start over").click()
    assert steps.input_value() == "0"


def test_a_picture_of_the_reader(network, images, show_explorers, tmp_path):
    figure = ready(show_explorers(explorers.equilibrium(network, images, CLASSES)))
    # the middle square is the second picture: the frame to its sides is cut away
    wide = np.zeros((32, 48, 3), dtype=np.uint8)
    wide[:, 8:40] = images[1].permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(wide).save(content, "png")
    bring = figure.locator('input[type="file"]')
    assert figure.get_by_label("Your own picture").count() == 1
    upload(figure, content.getvalue())
    agrees(ready(figure), followed(network, images), 1)
    assert words(figure).startswith("Your own picture. ")
    upload(figure, b"no picture", wait=False)
    figure.page.wait_for_function("document.querySelector('.jfb-words').textContent.includes('cannot read that file')")
    figure.get_by_role("button", name="Next picture").click()
    assert bring.input_value() == ""
    assert words(ready(figure)).startswith("Picture 2 of 3. ")


def test_what_is_transparent_is_white(network, images, show_explorers):
    """Not what was there before."""
    figure = ready(show_explorers(explorers.equilibrium(network, images, CLASSES)))
    content = io.BytesIO()
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(content, "png")
    upload(figure, content.getvalue())
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    agrees(ready(figure), followed(network, white), 0)


def test_choices_that_overtake_each_other(network, images, show_explorers):
    figure = show_explorers(explorers.equilibrium(network, images, CLASSES))
    # an unreadable file does not end the work under way
    figure.page.wait_for_selector('.jfb-explorer[data-busy="yes"]')
    upload(figure, b"no picture", wait=False)
    agrees(ready(figure), followed(network, images), 0)
    # of pictures chosen in quick succession the last one counts
    button = figure.get_by_role("button", name="Next picture")
    button.evaluate("(button) => { button.click(); button.click(); }")
    agrees(ready(figure), followed(network, images), 2)
    assert words(figure).startswith("Picture 3 of 3. ")
    # while it works, nothing of the picture before is left to see
    button.evaluate("(button) => button.click()")
    assert figure.get_attribute("data-busy") == "yes"
    assert rows(figure) == []
    agrees(ready(figure), followed(network, images), 0)


def test_the_next_picture_shows_its_journey(network, images, show_explorers):
    """Also after a run that stands at its end: it begins at 0, each step is seen as it is made, and only the end is spoken."""
    figure = ready(show_explorers(explorers.equilibrium(network, images, CLASSES)))
    figure.evaluate(
        """(figure) => {
            const words = figure.querySelector(".jfb-words"), steps = figure.querySelector('input[type="range"]');
            window.seen = [];
            new MutationObserver(() => window.seen.push([Number(steps.value), words.textContent, words.ariaLive]))
                .observe(words, { childList: true });
        }"""
    )
    figure.get_by_role("button", name="Next picture").click()
    ready(figure)
    seen = figure.evaluate("() => window.seen")
    # one mutation may stand for two changes of the text
    assert [step for step, *_ in seen] == sorted(step for step, *_ in seen)
    assert len({step for step, *_ in seen}) > 15
    assert seen[0][0] == 0
    assert seen[-1][0] == STEPS
    assert "step 7 of 20" in " ".join(text for _, text, _ in seen)
    assert {live for *_, live in seen[:-1]} == {"off"}
    assert seen[-1][1].startswith("Picture 2 of 3. After 20 steps")
    assert figure.locator(".jfb-words").get_attribute("aria-live") is None


def test_a_run_is_spoken_once(network, images, show_explorers):
    figure = ready(show_explorers(explorers.equilibrium(network, images, CLASSES)))
    status = figure.locator(".jfb-words")
    figure.get_by_role("button", name="Run").click()
    assert status.get_attribute("aria-live") == "off"
    figure.page.wait_for_function("document.querySelector('.jfb-words').textContent.includes('After 20 steps')")
    assert status.get_attribute("aria-live") is None


@pytest.mark.parametrize("dark", [False, True])
def test_for_everybody(network, images, show_explorers, dark):
    figure = ready(show_explorers(explorers.equilibrium(network, images, CLASSES), width=375, dark=dark))
    assert not grave_violations(figure.page)
    assert figure.page.evaluate("document.documentElement.scrollWidth") <= 375


def test_without_a_script(network, images, words_without_script):
    assert "iterates on a picture from zero" in words_without_script(explorers.equilibrium(network, images, CLASSES))


def test_it_stays_small(trained, images):
    parameters = sum(parameter.numel() for parameter in trained.parameters())
    assert len(explorers.equilibrium(trained, images, CLASSES)._repr_html_()) < 1.5 * parameters


def test_what_it_cannot_run(network, images):
    with pytest.raises(ValueError, match=r"a page runs networks of .*, got MaxPool2d"):
        explorers.equilibrium(architectures.mnist(), images, CLASSES)
    with pytest.raises(ValueError, match="images must be of the shape"):
        explorers.equilibrium(network, images.float(), CLASSES)
    with pytest.raises(ValueError, match="images must be of the shape"):
        explorers.equilibrium(network, images[:, :1], CLASSES)
    with pytest.raises(ValueError, match="classes must be 10 names, got 3"):
        explorers.equilibrium(network, images, CLASSES[:3])


def test_a_merged_convolution_is_what_it_was():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    layers = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), norm).eval()
    shake(norm, 1.0)
    numbers = Numbers()
    (said,) = program(layers, numbers)
    whole = np.frombuffer(bytes(numbers.integers), np.int8)[said["integers"] :][: 3 * 18].reshape(3, 18)
    real = np.frombuffer(bytes(numbers.floats), "<f4")[said["floats"] :][:6]
    x = torch.randn(1, 2, 5, 5)
    weight = torch.from_numpy(whole * real[:3, None]).reshape(3, 2, 3, 3)
    merged = nn.functional.conv2d(x, weight, torch.from_numpy(real[3:].copy()), padding=1)
    assert np.abs(whole).max(axis=1).tolist() == [127, 127, 127]
    assert torch.allclose(merged, layers(x), atol=0.05)


@pytest.mark.parametrize("tol", [float("nan"), float("inf"), 0.0, -1e-2, True, "1e-2"])
def test_a_tolerance_that_is_no_positive_number(tol):
    with pytest.raises((TypeError, ValueError), match="tol must be"):
        explorers.equilibrium(architectures.fast_cifar10(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), [], tol=tol)
