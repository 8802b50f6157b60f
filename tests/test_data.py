"""Data sets from files, folders and a server; batches and augmentation."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from jfb_tutorial.training import data, downloads
from jfb_tutorial.training.batches import Augmentation, Batches, generator
from jfb_tutorial.training.data import Images, hold_out, load

NOISE = np.random.default_rng(0)


def folder(root, name="shapes", shape=(8, 8), count=3, split="train"):
    for label in ("circle", "square"):
        place = root / name / split / label
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(NOISE.integers(256, size=shape, dtype=np.uint8)).save(place / f"{number}.png")


def test_the_digits_are_split_once_and_for_all():
    train, test = load("digits"), load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (1, 8, 8)
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.int64
    assert int(train.images.max()) == 255
    # the same for everybody, for ever
    sums = [int((part.images.long().sum(dim=(1, 2, 3)) * torch.arange(len(part))).sum()) for part in (train, test)]
    assert sums == [5130571710, 321079672]
    assert (train.labels.bincount() / 1437 - test.labels.bincount() / 360).abs().max() < 2e-3
    assert repr(test) == "Images(digits: 360 of 1×8×8, 10 classes, on cpu)"


def test_holding_out_is_stratified_and_the_same_in_every_run():
    labels = load("digits").labels
    kept, held = hold_out(labels, 240)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(1437))
    assert labels[held].bincount().min() >= 23
    assert torch.equal(held, hold_out(labels, 240)[1])
    assert not torch.equal(held, hold_out(labels, 240, seed=1)[1])
    assert len(hold_out(labels, 0)[1]) == 0
    for count in (-1, 5, 1430):
        with pytest.raises(ValueError, match="held_out must be"):
            hold_out(labels, count)


def test_an_image_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JFB_DATA", str(tmp_path))
    folder(tmp_path)
    folder(tmp_path, shape=(8, 8, 3), split="test")
    images = load("shapes")
    assert images.images.shape == (6, 1, 8, 8)
    assert images.classes == ("circle", "square")
    assert images.labels.tolist() == [0, 1, 0, 1, 0, 1]  # by the files' names: circle/0, square/0, circle/1, …
    for position, (label, number) in enumerate((label, n) for n in range(3) for label in ("circle", "square")):
        pixels = np.asarray(Image.open(tmp_path / f"shapes/train/{label}/{number}.png"))
        assert np.array_equal(images.images[position, 0].numpy(), pixels)
    colour = load("shapes", "test").images
    pixels = np.asarray(Image.open(tmp_path / "shapes/test/circle/0.png"))
    assert np.array_equal(colour[0].permute(1, 2, 0).numpy(), pixels)


def test_a_bad_image_folder(tmp_path):
    folder(tmp_path)
    (tmp_path / "shapes/train/circle/1.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(ValueError, match=r"circle/1\.png cannot be read as an image"):
        load("shapes", root=tmp_path)
    Image.new("L", (9, 8)).save(tmp_path / "shapes/train/circle/1.png")
    with pytest.raises(ValueError, match=r"most are 8×8 pixels in grey, but .*1\.png is 9×8"):
        load("shapes", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder .*shapes/test is not there"):
        load("shapes", "test", root=tmp_path)
    (tmp_path / "shapes/test/empty").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="holds no class with images"):
        load("shapes", "test", root=tmp_path)


def test_what_is_missing_is_named_with_two_ways_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load("mnist", root=tmp_path)
    for part in (f"{tmp_path}/MNIST/raw/train-images-idx3-ubyte", f"{tmp_path}/mnist/train", "$JFB_DATA"):
        assert part in str(error.value)
    assert "data mnist --download, or put images at" in str(error.value)
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        load("cifra10", root=tmp_path)
    with pytest.raises(ValueError, match="split must be one of"):
        load("digits", "validation")


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def published(monkeypatch):
    """Small data sets in the three formats, on a server whose addresses and checksums torchvision is told."""
    files, rng = {}, np.random.default_rng(1)

    def sums(name, content):
        files[name] = content
        return hashlib.md5(content).hexdigest()

    mnist = []
    for stem, count in (("train", 20), ("t10k", 10)):
        for what, array in (
            ("images-idx3", rng.integers(256, size=(count, 28, 28), dtype=np.uint8)),
            ("labels-idx1", np.arange(count, dtype=np.uint8) % 10),
        ):
            name = f"{stem}-{what}-ubyte.gz"
            mnist.append((name, sums(name, gzip.compress(idx(array)))))
    svhn = {}
    for split in ("train", "test"):
        file = io.BytesIO()
        savemat(
            file, {"X": rng.integers(256, size=(32, 32, 3, 12), dtype=np.uint8), "y": np.arange(1, 13)[:, None] % 11}
        )
        svhn[split] = (f"{split}_32x32.mat", sums(f"{split}_32x32.mat", file.getvalue()))
    lists: dict[str, list[list[str]]] = {"train": [], "test": []}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
            value = {"data": rng.integers(256, size=(4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]}
            if name == "batches.meta":
                value = {"label_names": [f"class {i}" for i in range(10)]}
            content = pickle.dumps(value)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            md5 = hashlib.md5(content).hexdigest()
            if name == "batches.meta":
                monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
            else:
                lists["test" if name == "test_batch" else "train"].append([name, md5])
    md5 = sums("cifar-10-python.tar.gz", archive.getvalue())

    class Handler(BaseHTTPRequestHandler):
        asked: list = []  # noqa: RUF012
        breaks_after: int | None = None
        files: dict[str, bytes]

        def do_GET(self):
            content = files[self.path.strip("/")]
            begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            Handler.asked.append((self.path.strip("/"), begin))
            if begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin : None if Handler.breaks_after is None else begin + Handler.breaks_after])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [host])
    monkeypatch.setattr(datasets.MNIST, "resources", mnist)
    monkeypatch.setattr(datasets.SVHN, "split_list", {s: [host + name, name, md5] for s, (name, md5) in svhn.items()})
    monkeypatch.setattr(datasets.CIFAR10, "url", host + "cifar-10-python.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", lists["train"])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", lists["test"])
    Handler.files = files
    yield Handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "train", "test", "shape"),
    [("mnist", 20, 10, (1, 28, 28)), ("svhn", 12, 12, (3, 32, 32)), ("cifar10", 20, 4, (3, 32, 32))],
)
def test_download_and_read(published, tmp_path, name, train, test, shape):
    images = load(name, root=tmp_path, download=True)
    assert images.images.shape == (train, *shape)
    assert images.images.is_contiguous()
    assert len(load(name, "test", root=tmp_path)) == test
    assert len(images.classes) == 10
    published.asked.clear()
    again = load(name, root=tmp_path, download=True)
    assert not published.asked  # all is there and whole
    assert torch.equal(images.images, again.images)
    assert not list(tmp_path.rglob("*.part"))


def test_the_pixels_are_those_of_the_files(published, tmp_path):
    images = load("mnist", root=tmp_path, download=True)
    raw = gzip.decompress(published.files["train-images-idx3-ubyte.gz"])[16:]
    assert images.images.numpy().tobytes() == raw
    with tarfile.open(fileobj=io.BytesIO(published.files["cifar-10-python.tar.gz"])) as archive:
        member = archive.extractfile("cifar-10-batches-py/data_batch_2")
        assert member is not None
        batch = pickle.loads(member.read())
    images = load("cifar10", root=tmp_path, download=True)
    assert images.images[4:8].numpy().tobytes() == batch["data"].tobytes()


def test_a_broken_download_goes_on_where_it_stopped(published, tmp_path):
    published.breaks_after = 5000
    with pytest.raises(OSError, match=r"the connection broke after 5000 of .*the same command goes on"):
        load("svhn", root=tmp_path, download=True)
    published.breaks_after = None
    published.asked.clear()
    load("svhn", root=tmp_path, download=True)
    assert published.asked[0] == ("train_32x32.mat", 5000)


def test_what_came_is_verified(published, tmp_path):
    published.files["train_32x32.mat"] = b"x" * 100
    with pytest.raises(OSError, match="not the published file"):
        load("svhn", root=tmp_path, download=True)
    assert not list(tmp_path.rglob("*.part"))


def test_a_part_that_is_whole_already_needs_no_bytes(published, tmp_path):
    (tmp_path / "SVHN").mkdir()
    (tmp_path / "SVHN" / "train_32x32.mat.part").write_bytes(published.files["train_32x32.mat"])
    assert len(load("svhn", root=tmp_path, download=True)) == 12


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("svhn", "SVHN/train_32x32.mat"),
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
    ],
)
def test_damaged_and_missing_files_are_named(published, tmp_path, name, file):
    load(name, root=tmp_path, download=True)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=rf"{name} is damaged: .*{path.name} is not the published file.*Two ways"):
        load(name, root=tmp_path)
    load(name, root=tmp_path, download=True)  # mends it
    if name != "svhn":
        path.unlink()
        with pytest.raises(FileNotFoundError, match=rf"there but for .*{path.name}\. Two ways"):
            load(name, root=tmp_path)


def test_downloads_name_no_host_of_ours():
    assert "http" not in (downloads.__doc__ or "") + (data.__doc__ or "")


def noise(count=20, channels=3, side=8, name="noise"):
    images = torch.randint(256, (count, channels, side, side), generator=generator(5), dtype=torch.uint8)
    return Images(name, images, torch.arange(count) % 10, tuple("0123456789"))


def test_an_epoch_sees_every_image_once_and_in_its_own_order():
    batches = Batches(noise(), 6, seed=3)
    assert len(batches) == 4
    seen = [torch.cat([images for images, _, _ in batches.epoch(number)]) for number in (0, 1, 0)]
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    rows = {image.numpy().tobytes() for image in seen[0]}
    assert rows == {image.numpy().tobytes() for image in noise().images}
    assert [whole for _, _, whole in batches.epoch(0)] == [6, 6, 6, 2]
    assert [whole for _, _, whole in Batches(noise(), 6, drop_last=True).epoch(0)] == [6, 6, 6]
    other = Batches(noise(), 6, seed=4)
    assert not torch.equal(next(other.epoch(0))[0], next(batches.epoch(0))[0])


def test_streams_of_random_numbers_differ():
    keys = [(3,), (3, 0), (3, 0, 0), (3, 12), (3, 12, 0), (4, 0), (0, 3)]
    seeds = [generator(*key).initial_seed() for key in keys]
    assert len(set(seeds)) == len(keys)
    assert generator(3, 12).initial_seed() == generator(3, 12).initial_seed()


def test_processes_share_every_batch_and_nothing_else():
    augmentation = Augmentation("random", crop=2, cutout=3)
    alone = list(Batches(noise(), 6, seed=1, augmentation=augmentation).epoch(2))
    parts = [list(Batches(noise(), 6, seed=1, augmentation=augmentation, rank=r, world=3).epoch(2)) for r in range(3)]
    assert len(alone) == 4
    assert all(len(part) == 3 for part in parts)  # two images are not enough for three processes
    for number in range(3):
        shared = torch.empty_like(alone[number][0])
        for rank in range(3):
            shared[rank::3] = parts[rank][number][0]
            assert parts[rank][number][2] == 6
        assert torch.equal(shared, alone[number][0])


def test_every_crop_is_a_window_of_the_framed_image():
    data = noise(40, side=5)
    for fill in ("reflect", "mean"):
        batches = Batches(data, 40, augmentation=Augmentation(crop=2, fill=fill))
        images, labels, _ = next(batches.epoch(0))
        order = torch.randperm(40, generator=generator(0, 0, 0))
        assert torch.equal(labels, data.labels[order])
        if fill == "reflect":
            framed = torch.nn.functional.pad(data.images, (2,) * 4, mode="reflect")
        else:
            framed = batches.mean.reshape(1, 3, 1, 1).repeat(40, 1, 9, 9)
            framed[:, :, 2:7, 2:7] = data.images
        places = set()
        for image, source in zip(images, framed[order], strict=True):
            windows = {
                (y, x) for y in range(5) for x in range(5) if torch.equal(image, source[:, y : y + 5, x : x + 5])
            }
            assert windows
            places |= windows
        assert len(places) > 12


def test_flips():
    data = noise(30)
    alternate = Batches(data, 30, augmentation=Augmentation("alternate"))
    by_label = []
    for epoch in (0, 1, 2):
        images, _, _ = next(alternate.epoch(epoch))
        order = torch.randperm(30, generator=generator(0, epoch, 0))
        flipped = torch.empty(30, dtype=torch.bool)
        flipped[order] = (images != data.images[order]).flatten(1).any(dim=1)
        by_label.append(flipped)
    assert torch.equal(by_label[0], ~by_label[1])
    assert torch.equal(by_label[0], by_label[2])
    assert 5 < int(by_label[0].sum()) < 25
    images, _, _ = next(Batches(data, 30, augmentation=Augmentation("random")).epoch(0))
    order = torch.randperm(30, generator=generator(0, 0, 0))
    changed = (images != data.images[order]).flatten(1).any(dim=1)
    assert torch.equal(images[changed].flip(-1), data.images[order][changed])
    assert 5 < int(changed.sum()) < 25


def painted(augmentation, side=16, count=400):
    data = Images("black", torch.zeros(count, 3, side, side, dtype=torch.uint8), torch.arange(count) % 10, ("a",) * 10)
    batches = Batches(data, count, augmentation=augmentation)
    batches.mean = torch.tensor([1, 2, 3], dtype=torch.uint8)
    images, _, _ = next(batches.epoch(0))
    assert torch.equal(images[:, 1], 2 * images[:, 0])
    assert torch.equal(images[:, 2], 3 * images[:, 0])
    return images[:, 0].bool()


def test_cutout_is_a_square_around_a_pixel_of_the_image():
    mask = painted(Augmentation(cutout=6))
    heights, widths = mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)
    assert torch.equal(mask.sum(dim=(1, 2)), heights * widths)
    assert (int(heights.max()), int(heights.min())) == (6, 3)
    assert mask.any(dim=0).all()


def test_erasing_is_a_rectangle_within_the_image():
    mask = painted(Augmentation(erase=0.75), side=32, count=1000)
    chosen = mask.any(dim=(1, 2))
    assert abs(int(chosen.sum()) - 750) < 50
    heights, widths = (mask.any(dim=axis).sum(dim=1)[chosen].double() for axis in (2, 1))
    assert torch.equal(mask.sum(dim=(1, 2))[chosen].double(), heights * widths)
    area = heights * widths / 1024
    assert 0.08 < float(area.min()) < 0.12
    assert 0.22 < float(area.max()) < 0.27
    assert float((heights / widths).max()) > 4
    assert float((heights / widths).min()) < 0.25
    # the rectangles reach all four edges, and about as often the far ones as the near ones
    edges = [int(mask[:, 0].any(dim=1).sum()), int(mask[:, -1].any(dim=1).sum())]
    edges += [int(mask[:, :, 0].any(dim=1).sum()), int(mask[:, :, -1].any(dim=1).sum())]
    assert min(edges) > 0.5 * max(edges) > 10
    assert not painted(Augmentation()).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": "vertical"}, "flip must be one of"),
        ({"crop": -1}, "crop must be at least 0"),
        ({"fill": "zero"}, "fill must be one of"),
        ({"erase": 2}, "erase must be a probability"),
    ],
)
def test_bad_augmentations_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)


def test_bad_batches_are_refused():
    with pytest.raises(ValueError, match="at most the number of training images, 20, got 21"):
        Batches(noise(), 21)
    with pytest.raises(ValueError, match="at least the number of processes, 4, got 3"):
        Batches(noise(), 3, world=4)
    with pytest.raises(TypeError, match="batch must be an integer"):
        Batches(noise(), cast(Any, 2.5))
