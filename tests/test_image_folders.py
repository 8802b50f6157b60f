"""Image folders: what is listed, what a file may be, and that whatever cannot be right is one line that names the file."""

import os
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder

from jfb_tutorial.__main__ import main
from jfb_tutorial.training import image_folders
from jfb_tutorial.training.data import DataNotFoundError, load
from jfb_tutorial.training.listing import list_images

LEVELS = (0, 4095, 32768, 65535)


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images, as `<tmp_path>/shapes/train`."""
    for number, label in enumerate(("circle", "square")):
        place = tmp_path / "shapes" / "train" / label
        place.mkdir(parents=True)
        for index in range(2):
            Image.new("L", (4, 4), 100 * number + index).save(place / f"{index}.png")
    return tmp_path / "shapes" / "train"


def refusal(root, name="shapes", error: type[Exception] = ValueError, **settings):
    """The message with which the data set is refused, which is one line."""
    with pytest.raises(error) as caught:
        load(name, root=root, **settings)
    message = str(caught.value)
    assert message.isprintable()  # a newline is not
    return message


def test_the_listing_is_image_folders_in_the_order_of_names(folder):
    for place in ("circle/deep/er", "circle/deep-", "square/Deep"):
        (folder / place).mkdir(parents=True)
        for name in ("0.png", "b.PNG", "a.tiff"):
            (folder / place / name).touch()
    listing, theirs = list_images(folder), ImageFolder(folder)
    expected = sorted(theirs.samples, key=lambda sample: os.path.basename(sample[0]))
    assert [(str(path), label) for path, label in zip(listing.paths, listing.labels, strict=True)] == expected
    assert listing.classes == tuple(theirs.classes)
    assert not listing.notes


# Links and what is not a file


def test_links_to_files_and_to_folders_elsewhere_are_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "circle" / "1.png").rename(tmp_path / "elsewhere" / "1.png")
    (folder / "circle" / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "square" / "2.png").symlink_to("1.png")
    (folder / "star").symlink_to(tmp_path / "elsewhere" / "star")
    (tmp_path / "elsewhere" / "star").mkdir()
    Image.new("L", (4, 4), 7).save(tmp_path / "elsewhere" / "star" / "9.png")
    # the class star is in the folder that circle is linked to
    assert "leads to" in refusal(tmp_path)
    (tmp_path / "elsewhere" / "star").rename(tmp_path / "star")
    (folder / "star").unlink()
    (folder / "star").symlink_to(tmp_path / "star")
    images = load("shapes", root=tmp_path)
    assert images.images[:, 0, 0, 0].tolist() == [0, 100, 1, 101, 101, 7]
    assert images.labels.tolist() == [0, 1, 0, 1, 1, 2]
    assert load("shapes", root=tmp_path, channels=3).images.shape == (6, 3, 4, 4)


def test_images_of_training_are_none_of_the_test(folder, tmp_path):
    test = folder.parent / "test"
    for label in ("circle", "square"):
        (test / label).mkdir(parents=True)
        Image.new("L", (4, 4), 9).save(test / label / "8.png")
    (test / "circle" / "9.png").symlink_to(folder / "circle" / "1.png")
    words = f"1 of the 3 images of {test} are those of {folder} too, by links "
    words += f"({test}/circle/9.png is {folder}/circle/1.png); remove the links"
    assert words in refusal(tmp_path, split="test")
    assert len(load("shapes", root=tmp_path)) == 4  # what is trained on is no matter of the test
    (test / "circle" / "9.png").unlink()
    assert len(load("shapes", "test", root=tmp_path)) == 2
    shutil.rmtree(test)
    test.symlink_to(folder)
    assert f"4 of the 4 images of {test}" in refusal(tmp_path, split="test")


@pytest.mark.parametrize(
    ("link", "to"),
    [
        ("circle/again", "."),
        ("circle/up", ".."),
        ("circle/far", "../../.."),
        ("circle/other", "../square"),
        ("disc", "circle"),
        ("all", "."),
    ],
)
def test_no_folder_is_read_twice(folder, tmp_path, link, to):
    (folder / link).symlink_to(to)
    message = refusal(tmp_path)
    # of a link and the folder that it leads to, the one that is later in the walk; one to a folder above is not gone into
    assert message.startswith(f"{folder / ('square' if link == 'circle/other' else link)} leads to ")
    assert message.endswith("whose images would be read twice or under two classes; remove the link")
    (folder / link).unlink()
    assert len(load("shapes", root=tmp_path)) == 4


def test_three_link_loops_end_at_once(folder, tmp_path):
    for number in range(3):
        (folder / "circle" / f"loop{number}").symlink_to(folder / "circle", target_is_directory=True)
    assert "circle/loop0 leads to" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is named like an image and is no file of data"),
        (lambda path: path.symlink_to("nowhere.png"), "cannot be read (No such file"),
        (lambda path: path.symlink_to(path), "cannot be read (Too many levels"),
        (lambda path: path.symlink_to("/dev/zero"), "is named like an image and is no file of data"),
    ],
)
def test_what_is_no_file_is_not_opened(folder, tmp_path, make, words):
    make(folder / "circle" / "x.png")
    message = refusal(tmp_path)
    assert "circle/x.png" in message
    assert words in message


# What is left out


def test_files_that_are_left_out_are_counted_aloud(folder, tmp_path, monkeypatch, capsys):
    for name in ("circle/a.gif", "circle/b.GIF", "square/c.gif", "square/README", "labels.csv"):
        (folder / name).touch()
    (note,) = load("shapes", root=tmp_path).notes
    assert note.startswith(f"5 files in {folder} are left out (")
    assert "3 .gif, 1 outside of the classes' folders, 1 without a suffix" in note
    assert "ends in .jpg, .jpeg, .png" in note
    (tmp_path / "shapes" / "train").rename(tmp_path / "shapes" / "test")
    (tmp_path / "shapes" / "test").joinpath("labels.csv").unlink()
    monkeypatch.setenv("JFB_DATA", str(tmp_path))
    shutil.copytree(tmp_path / "shapes" / "test", tmp_path / "shapes" / "train")
    assert main(["data", "shapes"]) == 0
    assert capsys.readouterr().out.count("4 files in") == 2


def test_a_class_of_files_that_are_left_out_says_so(folder, tmp_path):
    (folder / "star").mkdir()
    (folder / "star" / "a.gif").touch()
    message = refusal(tmp_path, error=DataNotFoundError)
    assert "no image of star; 1 files" in message
    assert "(1 .gif)" in message


# What a file may hold


def png(depth, colour, row, before=b""):
    """A PNG of one row of pixels, with a chunk `before` them."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", 8 * len(row) // (depth * channels), 1, depth, colour, 0, 0, 0)
    named = chunk(before[:4], before[4:]) if before else b""
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + named + pixels + chunk(b"IEND", b"")


def tiff(bits, row, width, *, white_is_zero=False, format=1, end="<"):
    """A TIFF of one row of pixels; `format` is 1 for unsigned, 2 for signed, 3 for floating-point numbers."""
    short, long = 3, 4
    tags = [(256, short, width), (257, short, 1), (258, short, bits), (259, short, 1), (262, short, 1 - white_is_zero)]
    tags += [(273, long, 14 + 12 * 10), (277, short, 1), (278, short, 1), (279, long, len(row)), (339, short, format)]
    file = (b"II*\0" if end == "<" else b"MM\0*") + struct.pack(f"{end}IH", 8, len(tags))
    for tag, kind, value in tags:
        file += struct.pack(f"{end}HHI", tag, kind, 1) + struct.pack(
            f"{end}HH" if kind == short else f"{end}I", *((value, 0) if kind == short else (value,))
        )
    return file + struct.pack(f"{end}I", 0) + row


def write(root, name, content):
    place = root / "files" / "train" / "one"
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
    return place / name


def in_words(value):
    """The name of a case: what it is called, and not the bytes of the file."""
    return value if isinstance(value, str) else ""


SCALED, LAID = "scaled from 16 bits to 8", "transparent, and laid on white"


@pytest.mark.parametrize(
    ("name", "content", "pixels", "notes"),
    [
        ("little.tiff", tiff(16, struct.pack("<4H", *LEVELS), 4), [[0, 16, 128, 255]], [SCALED]),
        ("big.tiff", tiff(16, struct.pack(">4H", *LEVELS), 4, end=">"), [[0, 16, 128, 255]], [SCALED]),
        ("a.png", png(16, 0, struct.pack(">4H", *LEVELS)), [[0, 16, 128, 255]], [SCALED]),
        ("a.pgm", b"P5 4 1 65535\n" + struct.pack(">4H", *LEVELS), [[0, 16, 128, 255]], [SCALED]),
        ("ten.pgm", b"P5 4 1 1023\n" + struct.pack(">4H", 0, 1, 512, 1023), [[0, 0, 128, 255]], [SCALED]),
        # 4095 is the transparent grey
        (
            "t.png",
            png(16, 0, struct.pack(">4H", *LEVELS), b"tRNS" + struct.pack(">H", 4095)),
            [[0, 255, 128, 255]],
            [SCALED, LAID],
        ),
        ("rgb.png", png(16, 2, struct.pack(">3H", 255, 32767, 65535)), [[0], [127], [255]], []),
        ("la.png", png(16, 4, struct.pack(">4H", 40000, 65535, 40000, 0)), [[156, 255]] * 3, [LAID]),
        ("four.png", png(4, 0, b"\x0f\x80"), [[0, 255, 136, 0]], []),
        ("t8.png", png(8, 0, b"\0\1\2\3", b"tRNS\0\1"), [[0, 255, 2, 3]], [LAID]),
        ("t24.png", png(8, 2, b"\1\2\3\1\2\4", b"tRNS\0\1\0\2\0\3"), [[255, 1], [255, 2], [255, 4]], [LAID]),
        ("white.tiff", tiff(8, bytes([0, 1, 200, 255]), 4, white_is_zero=True), [[255, 254, 55, 0]], []),
        ("bits.tiff", tiff(1, b"\xf0", 8, white_is_zero=True), [[0] * 4 + [255] * 4], []),
    ],
    ids=in_words,
)
def test_levels_are_those_that_the_file_means(tmp_path, name, content, pixels, notes):
    write(tmp_path, name, content)
    images = load("files", root=tmp_path)
    assert images.images[0, :, 0].tolist() == pixels
    assert [note.rsplit(" were ", 1)[1] for note in images.notes] == notes


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("white.tiff", tiff(16, b"\0" * 8, 4, white_is_zero=True), "holds 16-bit numbers, with white as 0,"),
        ("twelve.tiff", tiff(12, b"\0" * 6, 4), "holds 12-bit numbers which are not read right"),
        ("signed.tiff", tiff(8, b"\0" * 4, 4, format=2), "holds signed numbers"),
        ("short.tiff", tiff(16, b"\0" * 8, 4, format=2), "holds 32-bit integers"),
        ("long.tiff", tiff(32, b"\0" * 8, 2), "holds 32-bit integers"),
        ("float.tiff", tiff(32, b"\0" * 8, 2, format=3), "holds floating-point numbers"),
        ("double.tiff", tiff(64, b"\0" * 16, 2, format=3), "cannot be read as an image"),
        ("one.png", png(1, 0, b"\x1b", b"tRNS\0\1"), "names a transparent colour in other than 8 bits"),
        ("two.png", png(2, 0, b"\x1b", b"tRNS\0\1"), "names a transparent colour in other than 8 bits"),
        ("four.png", png(4, 0, b"\x1b", b"tRNS\0\1"), "names a transparent colour in other than 8 bits"),
        ("rgb.png", png(16, 2, b"\1" * 6, b"tRNS" + b"\1" * 6), "names a transparent colour in other than 8 bits"),
        ("a.pgm", b"Pf\n2 1\n-1.0\n" + b"\0" * 8, "holds floating-point numbers"),
        (
            "bomb.png",
            png(1, 0, b"\0").replace(struct.pack(">II", 8, 1), struct.pack(">II", 99999, 99999)),
            "cannot be read",
        ),
        ("empty.png", b"", "cannot be read as an image"),
    ],
    ids=in_words,
)
def test_levels_without_a_meaning_are_refused(tmp_path, name, content, words):
    path = write(tmp_path, name, content)
    assert f"{path} {words}" in refusal(tmp_path, "files")


def test_a_bomb_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    path = write(tmp_path, "bomb.png", png(8, 0, b"\0" * 16))
    message = refusal(tmp_path, "files")
    assert f"{path} cannot be read as an image (Image size (16 pixels) exceeds limit" in message


def test_of_several_pictures_the_first_is_read_and_that_is_said(tmp_path):
    path = write(tmp_path, "a.tiff", b"")
    pages = [Image.new("L", (2, 2), grey) for grey in (7, 8, 9)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    images = load("files", root=tmp_path)
    assert images.images.unique().tolist() == [7]
    assert images.notes[0].endswith("were cut to the first of their pictures")


def fault(path):
    """With what a file is refused as an image; nothing if it is read."""
    try:
        image_folders._open(path)
    except ValueError as error:
        return str(error)
    return ""


def test_mutated_files_are_read_or_refused_in_one_line_that_names_them(tmp_path, monkeypatch):
    # a header of a mutant may ask for gigabytes, for which nobody waits here
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(256, size=(6, 5, 3), dtype=np.uint8))
    wholes = []
    for kind in ("png", "jpeg", "bmp", "tiff", "ppm", "webp"):
        pixels.save(tmp_path / f"whole.{kind}")
        wholes.append((tmp_path / f"whole.{kind}").read_bytes())
    wholes.append(tiff(16, struct.pack("<4H", *LEVELS), 4))
    refused = 0
    for number in range(1500):
        content = bytearray(wholes[number % len(wholes)])
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            content[place] = rng.integers(256)
        path = tmp_path / f"{number}.png"
        path.write_bytes(content[: rng.integers(len(content))] if rng.random() < 0.2 else content)
        if text := fault(path):
            assert text.startswith(f"{path} ")
            assert text.isprintable()
            refused += 1
    assert 300 < refused < 1400


def test_images_are_made_small_as_they_are_read(tmp_path):
    """To the byte what they were when all of them were kept in full size until the last was read."""
    rng = np.random.default_rng(0)
    colour, grey = (rng.integers(256, size=size, dtype=np.uint8) for size in ((9, 7, 3), (6, 8)))
    for name, pixels in (("a.png", colour), ("b.png", grey)):
        write(tmp_path, name, b"")
        Image.fromarray(pixels).save(tmp_path / "files" / "train" / "one" / name)
    images = load("files", root=tmp_path, size=4).images
    for image, pixels in zip(images, (colour, grey), strict=True):
        small = ImageOps.fit(Image.fromarray(pixels).convert("RGB"), (4, 4), Image.Resampling.BILINEAR)
        assert torch.equal(image, torch.from_numpy(np.array(small)).permute(2, 0, 1))
    all_grey = load("files", root=tmp_path, size=4, channels=1).images[0, 0]
    small = ImageOps.fit(Image.fromarray(colour).convert("L"), (4, 4), Image.Resampling.BILINEAR)
    assert torch.equal(all_grey, torch.from_numpy(np.array(small)))


# Odd arguments


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        (3, TypeError, "dataset must be a name, got int; digits, mnist"),
        (None, TypeError, "dataset must be a name, got NoneType"),
        ("", ValueError, "dataset must be one of"),
        ("shapes\nelse", ValueError, r"got 'shapes\nelse'; did you mean 'shapes'?"),
        ("nul\0", ValueError, "dataset must be one of"),
        ("x" * 5000, ValueError, "dataset 'xxxxxxxxxxxxxxxxxxxx… of 5,000 characters' cannot be looked for in"),
        ("shape", ValueError, "did you mean 'shapes'?"),
    ],
)
def test_odd_names_are_refused(folder, tmp_path, name, error, words):
    assert words in refusal(tmp_path, name, error)


@pytest.mark.parametrize("root", [3, 2.5, ["a"]])
def test_a_root_that_is_no_path_is_refused(root):
    assert "root must be a path, got" in refusal(root, "digits", TypeError)


def test_a_missing_root_and_a_file_for_a_root(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "nowhere", tmp_path / "file"):
        assert f"neither {root}/MNIST/raw/" in refusal(root, "mnist", DataNotFoundError)
        assert "dataset must be one of" in refusal(root)


def test_odd_folders_are_refused(folder, tmp_path):
    assert "the folder" in refusal(tmp_path, split="test", error=DataNotFoundError)
    (tmp_path / "shapes" / "test").mkdir()
    assert "no folder of a class is there" in refusal(tmp_path, split="test", error=DataNotFoundError)
    (tmp_path / "shapes" / "test" / "a\nb").mkdir()
    assert r"no image of 'a\nb'" in refusal(tmp_path, split="test", error=DataNotFoundError)
    (folder / "circle" / "bad\n\udcff.png").touch()
    assert r"circle/bad\n\udcff.png' cannot be read as an image" in refusal(tmp_path)
    assert "size must be at least 1" in refusal(tmp_path, size=0)
    assert "split must be one of" in refusal(tmp_path, split="validation")


@pytest.mark.parametrize("place", [".", "circle", "circle/0.png"])
def test_what_may_not_be_read_is_named(folder, tmp_path, monkeypatch, place):
    """Permissions do not bind root, as whom the tests may run, so the refusal is the system's in a stand-in."""
    refused = str(folder / place)

    def guarded(call):
        def wrapper(path, *rest, **settings):
            if os.fspath(path) == refused:
                raise PermissionError(13, "Permission denied", refused)
            return call(path, *rest, **settings)

        return wrapper

    monkeypatch.setattr(os, "scandir", guarded(os.scandir))
    monkeypatch.setattr(Image, "open", guarded(Image.open))
    message = refusal(tmp_path)
    assert f"{refused} cannot be" in message
    assert "Permission denied" in message


def test_a_folder_named_like_a_set_that_is_there_is_named(tmp_path):
    (tmp_path / "digits" / "test").mkdir(parents=True)
    assert not load("digits", root=tmp_path).notes
    (note,) = load("digits", "test", root=tmp_path).notes
    assert f"the folder {tmp_path}/digits/test is not read, since digits comes with scikit-learn" in note
