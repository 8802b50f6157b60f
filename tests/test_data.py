"""Data sets from files, folders and a server; batches and augmentation."""

import gzip
import hashlib
import io
import os
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
from scipy.io import loadmat, savemat
from torchvision import datasets

from jfb_tutorial.__main__ import main
from jfb_tutorial.training import data, downloads, train
from jfb_tutorial.training import published as published_files
from jfb_tutorial.training.batches import Augmentation, Batches, generator
from jfb_tutorial.training.data import Images, hold_out, load
from jfb_tutorial.training.recipes import recipe

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

    def packed(folder=""):
        made = []
        for stem, count in (("train", 20), ("t10k", 10)):
            for what, array in (
                ("images-idx3", rng.integers(256, size=(count, 28, 28), dtype=np.uint8)),
                ("labels-idx1", np.arange(count, dtype=np.uint8) % 10),
            ):
                name = f"{stem}-{what}-ubyte.gz"
                made.append((name, sums(folder + name, gzip.compress(idx(array)))))
        return made

    mnist = packed()
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
    fashion = packed("fashion/")  # the files of both have the same names

    class Handler(BaseHTTPRequestHandler):
        asked: list = []  # noqa: RUF012
        breaks_after: int | None = None
        # an answer of bytes, whatever is asked, in place of HTTP
        answer: bytes | None = None
        files: dict[str, bytes]

        def do_GET(self):
            if Handler.answer is not None:
                self.wfile.write(Handler.answer)
                return
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
    # seconds in which it looks whether it is to end
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [host])
    monkeypatch.setattr(datasets.MNIST, "resources", mnist)
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"{host}fashion/"])
    monkeypatch.setattr(datasets.FashionMNIST, "resources", fashion)
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
    [
        ("mnist", 20, 10, (1, 28, 28)),
        ("svhn", 12, 12, (3, 32, 32)),
        ("cifar10", 20, 4, (3, 32, 32)),
        ("fashion-mnist", 20, 10, (1, 28, 28)),
    ],
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
    images = load("fashion-mnist", root=tmp_path, download=True)
    assert (
        images.images.numpy().tobytes() == gzip.decompress(published.files["fashion/train-images-idx3-ubyte.gz"])[16:]
    )
    assert images.classes[9] == "Ankle boot"
    with tarfile.open(fileobj=io.BytesIO(published.files["cifar-10-python.tar.gz"])) as archive:
        member = archive.extractfile("cifar-10-batches-py/data_batch_2")
        assert member is not None
        batch = pickle.loads(member.read())
    pixels = loadmat(io.BytesIO(published.files["train_32x32.mat"]))["X"]
    images = load("svhn", root=tmp_path, download=True)
    assert np.array_equal(images.images[7].permute(1, 2, 0).numpy(), pixels[..., 7])
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


def test_a_server_without_ranges_sends_the_whole_again(published, tmp_path):
    whole = published.files["train_32x32.mat"]
    (tmp_path / "SVHN").mkdir()
    (tmp_path / "SVHN" / "train_32x32.mat.part").write_bytes(whole[:100])
    published.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole
    url, name, md5 = datasets.SVHN.split_list["train"]
    downloads.download([url], tmp_path / "SVHN" / name, md5)
    assert (tmp_path / "SVHN" / name).read_bytes() == whole


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
        ("fashion-mnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
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


GARBAGE = {
    "no HTTP": b"garbage\r\n\r\n",
    "nothing": b"",
    "a long line": b"x" * 70_000,
    "no number": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "an odd length": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk that ends": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"".join(b"a%d: b\r\n" % i for i in range(300)) + b"\r\n",
    "an address of ours": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    "an odd address": b"HTTP/1.1 302 Found\r\nLocation: http://[/\r\n\r\n",
    "a part of another file": b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nabc",
    "a refusal": b"HTTP/1.1 503 Busy\r\n\r\n",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
def test_an_answer_that_is_none_is_a_refusal_of_one_line(published, tmp_path, answer):
    published.answer = answer
    with pytest.raises(OSError, match=r"could not download train_32x32\.mat \(") as error:
        load("svhn", root=tmp_path, download=True)
    assert str(error.value).isprintable()
    published.answer = None
    assert len(load("svhn", root=tmp_path, download=True)) == 12


@pytest.mark.parametrize("announced", [True, False])
def test_no_more_is_taken_than_the_file_may_have(published, tmp_path, monkeypatch, announced):
    md5 = datasets.SVHN.split_list["train"][2]
    whole = published.files["train_32x32.mat"]
    monkeypatch.setitem(downloads.BYTES, md5, len(whole))
    length = b"Content-Length: 999999999\r\n" if announced else b""
    published.answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + whole + b"x" * 500_000
    with pytest.raises(OSError, match=rf"it sends more than the {len(whole):,} bytes that the file may have") as error:
        load("svhn", root=tmp_path, download=True)
    assert "goes on from there" not in str(error.value)
    assert not list(tmp_path.rglob("*.part"))
    # what an earlier download left may be too long already
    (tmp_path / "SVHN" / "train_32x32.mat.part").write_bytes(whole + b"x")
    published.answer = b"HTTP/1.1 206 Partial\r\n\r\n" + b"x" * 500_000
    with pytest.raises(OSError, match="it sends more than"):
        load("svhn", root=tmp_path, download=True)
    published.answer = None
    assert len(load("svhn", root=tmp_path, download=True)) == 12


@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a second name", "a pipe", "a folder", "a user's"])
def test_what_has_come_is_written_to_no_file_of_others(published, tmp_path, monkeypatch, kind):
    other, part = tmp_path / "precious", tmp_path / "SVHN" / "train_32x32.mat.part"
    part.parent.mkdir()
    other.write_bytes(b"mine")
    make = {"a second name": lambda: part.hardlink_to(other), "a pipe": lambda: os.mkfifo(part), "a folder": part.mkdir}
    make["a user's"] = lambda: (part.write_bytes(b"theirs"), monkeypatch.setattr(os, "getuid", lambda: 12345))
    make.get(kind, lambda: part.symlink_to(tmp_path / "nothing" if kind == "a link to nothing" else other))()
    with pytest.raises(OSError, match=r"\.part (is not a file that an earlier download left|cannot be written)"):
        load("svhn", root=tmp_path, download=True)
    assert other.read_bytes() == b"mine"
    assert kind != "a user's" or part.read_bytes() == b"theirs"
    assert not (tmp_path / "nothing").exists()


# What is read


def test_every_file_of_torchvisions_has_a_sha256_sum_and_a_size():
    """Else an update of torchvision would have its new files checked by MD5 alone."""
    packed = [md5 for _, md5 in datasets.MNIST.resources]
    packed += [md5 for _, md5 in datasets.FashionMNIST.resources]
    packed += [datasets.SVHN.split_list[split][2] for split in ("train", "test")] + [datasets.CIFAR10.tgz_md5]
    batches = [md5 for _, md5 in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list)]
    assert set(packed) == set(downloads.BYTES)
    assert {*packed, *batches, datasets.CIFAR10.meta["md5"]} == set(downloads.SHA256)
    assert len(set(downloads.SHA256.values())) == 18
    assert all(len(text) == 64 for text in (*downloads.SHA256.values(), *downloads.UNPACKED.values()))


@pytest.mark.parametrize("name", ["svhn", "cifar10"])
def test_a_file_with_the_right_md5_sum_alone_is_refused_before_it_is_read(published, tmp_path, monkeypatch, name):
    load(name, root=tmp_path, download=True)
    path = downloads.split_files(name, "train", tmp_path)[0]
    md5, right = hashlib.md5(path.read_bytes()).hexdigest(), hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(downloads.SHA256, md5, right)
    assert len(load(name, root=tmp_path)) > 0
    monkeypatch.setitem(downloads.SHA256, md5, right[::-1])
    monkeypatch.setattr(data, "READERS", {})  # reading would be a KeyError
    with pytest.raises(ValueError, match=rf"{name} is damaged: {path} is not the published file"):
        load(name, root=tmp_path)


class Evil:
    """What unpickles to a call of any function that its writer likes."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_unpickled_and_nothing_else_is_called(tmp_path, protocol):
    value = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "label_names": ["ü"]}
    (tmp_path / "good").write_bytes(pickle.dumps(value, protocol))
    entries = published_files._entries(tmp_path / "good", "data", "labels", "label_names")
    assert entries[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert entries[1:] == [[1, 2], ["ü"]]
    for number, evil in enumerate((Evil(tmp_path / "made"), np.array([Evil(tmp_path / "made")], dtype=object))):
        path = tmp_path / f"evil{number}"
        path.write_bytes(pickle.dumps({"data": evil, "labels": []}, protocol))
        with pytest.raises(ValueError, match=rf"{path} cannot be read \(.*mkdir, which no data set needs"):
            published_files._entries(path, "data", "labels")
    assert not (tmp_path / "made").exists()


def test_a_pickle_of_python_2_is_read():
    """As CIFAR-10's are: text is bytes in it, and NumPy's functions are where NumPy 1 had them."""
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x06\x00\x01\x02\xfd\xfe\xfftbu."
    )
    entry = published_files._Arrays(io.BytesIO(content), encoding="latin1").load()
    assert entry["data"].tolist() == [[0, 1, 2], [253, 254, 255]]


def write_mnist(root, images=(20, 28, 28), labels=None, count=None):
    """Files in MNIST's place with images of a shape and these labels, or so many; those of the test are right."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    values = np.arange(images[0] if count is None else count) % 10 if labels is None else np.array(labels)
    for stem, shape, numbers in (("train", images, values), ("t10k", (10, 28, 28), np.arange(10))):
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(np.full(shape, 3, dtype=np.uint8)))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx(numbers.astype(np.uint8)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 19}, "labels-idx1-ubyte should hold 20 labels, one an image, and holds 19"),
        ({"count": 21}, "labels-idx1-ubyte should hold 20 labels, one an image, and holds 21"),
        ({"images": (20, 14, 56)}, "images-idx3-ubyte holds images of the shape (20, 1, 14, 56) in uint8"),
        ({"images": (0, 28, 28)}, "images-idx3-ubyte holds images of the shape (0, 1, 28, 28)"),
        ({"labels": [77] * 20}, "labels-idx1-ubyte holds labels from 77 to 77, not from 0 to 9"),
        ({"labels": [10, *range(19)]}, "labels-idx1-ubyte holds labels from 0 to 18, not from 0 to 9"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_mnist_that_do_not_belong_together_are_refused(tmp_path, settings, words):
    write_mnist(tmp_path, **settings)
    with pytest.raises(ValueError, match=r"^mnist is damaged: .*Remove it\. Two ways to get it") as error:
        load("mnist", root=tmp_path)
    assert words in str(error.value)
    assert str(error.value).isprintable()
    assert len(load("mnist", "test", root=tmp_path)) == 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\x01\0\0\0\x14",
        b"\0\0\x0d\x03" + b"\0" * 12,
        idx(np.zeros((20, 28, 28), np.uint8))[:-1],
    ],
)
def test_what_is_no_idx_file_is_damaged(tmp_path, content):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is not the published file"):
        load("mnist", root=tmp_path)


def test_files_in_mnists_place_that_are_others_are_read_and_named(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    images = load("mnist", root=tmp_path)
    assert images.images.shape == (20, 1, 28, 28)
    assert len(images.notes) == 2
    assert (
        images.notes[0]
        == f"{tmp_path}/MNIST/raw/train-images-idx3-ubyte is not mnist's published file, and is read all the same"
    )
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "MNIST" / "raw").iterdir()}
    monkeypatch.setattr(downloads, "UNPACKED", sums)
    assert not load("mnist", root=tmp_path).notes
    # a folder of the name is not read then, which is said
    (tmp_path / "mnist" / "train").mkdir(parents=True)
    assert "since mnist is there as its published files" in load("mnist", root=tmp_path).notes[0]


def test_fashion_mnist_is_known_by_the_packed_files_beside_it(published, tmp_path):
    """Sums of its unpacked files are nowhere published."""
    assert not load("fashion-mnist", root=tmp_path, download=True).notes
    packed = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = packed.read_bytes()
    packed.unlink()
    (note,) = load("fashion-mnist", root=tmp_path).notes
    assert note.startswith(f"{packed.with_suffix('')} is not known to be fashion-mnist's published file")
    # nor by a packed file that is another one, or by one that unpacks to something else
    packed.write_bytes(gzip.compress(b"other"))
    assert len(load("fashion-mnist", root=tmp_path).notes) == 1
    packed.write_bytes(content)
    unpacked = packed.with_suffix("")
    unpacked.write_bytes(unpacked.read_bytes()[:-1] + b"x")
    assert len(load("fashion-mnist", root=tmp_path).notes) == 1
    packed.write_bytes(gzip.compress(unpacked.read_bytes()))
    assert len(load("fashion-mnist", root=tmp_path).notes) == 1


def test_fashion_mnist_trains_with_the_mnist_network(published, tmp_path, monkeypatch):
    monkeypatch.setenv("JFB_DATA", str(tmp_path))
    load("fashion-mnist", download=True)
    plan = recipe("fashion-mnist", "smoke", images=20, batch=10, reestimate=0, probe=0)
    record = train(plan).record
    assert (record["config"]["network"], record["parameters"]) == ("mnist", 54_352)
    assert record["result"]["test_images"] == 10


def test_what_torchvision_once_made_of_mnist_is_not_read(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save(
            (torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5).long()), tmp_path / "MNIST" / "processed" / name
        )
    assert len(load("mnist", root=tmp_path)) == 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.arange(3)[:, None]}, "should hold 4 labels"),
        ({"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.full((4, 1), 11)}, "holds labels from 11 to 11"),
        ({"X": np.zeros((32, 32, 3, 4)), "y": np.arange(4)[:, None]}, "in float64"),
        ({"X": np.zeros((32, 32)), "y": np.arange(4)[:, None]}, r"not \(32, 32, 3, N\)"),
        ({"X": np.zeros((32, 32, 3, 4), np.uint8)}, "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_svhn_is_checked_as_well(tmp_path, content, words):
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=rf"a\.mat .*{words}"):
        published_files.read_svhn(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("batch", "names", "words"),
    [
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [1, 2, 3]}, 10, "batch should hold 4 labels"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [1, 2, 3, 10]}, 10, "batch holds labels from 1 to 10"),
        ({"data": np.zeros((4, 3071), np.uint8), "labels": [0] * 4}, 10, r"not \(N, 3072\)"),
        ({"data": np.zeros((4, 3072), np.uint8)}, 10, "batch should hold a dictionary with data and labels"),
        ([1], 10, "batch should hold a dictionary with data and labels"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0] * 4}, 9, "meta should name 10 classes, and names 9"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cifar10_is_checked_as_well(tmp_path, batch, names, words):
    (tmp_path / "batch").write_bytes(pickle.dumps(batch))
    (tmp_path / "meta").write_bytes(pickle.dumps({"label_names": [str(number) for number in range(names)]}))
    with pytest.raises(ValueError, match=words):
        published_files.read_cifar10(tmp_path / "batch", tmp_path / "meta")


def test_a_download_without_names_is_refused_before_anything_is_read(monkeypatch, capsys):
    monkeypatch.setattr(data, "load", None)
    assert main(["data", "--download"]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "--download needs the names of data sets: mnist, svhn, cifar10" in err


def test_downloads_name_no_host_of_ours():
    assert "http" not in (downloads.__doc__ or "") + (data.__doc__ or "")


def noise(count=20, channels=3, side=8, name="noise"):
    images = torch.randint(256, (count, channels, side, side), generator=generator(5), dtype=torch.uint8)
    return Images(name, images, torch.arange(count) % 10, tuple("0123456789"))


def test_a_part_has_its_own_labels_and_a_published_set_no_other_size():
    part = noise()[torch.tensor([13, 2])]
    assert part.labels.tolist() == [3, 2]
    assert torch.equal(part.images, noise().images[[13, 2]])
    for size, channels in ((9, None), (None, 3)):
        with pytest.raises(ValueError, match="only those of an image folder are resized"):
            load("digits", size=size, channels=channels)
    assert len(load("digits", size=8, channels=1)) == 1437


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
        # to the far edges of the frame, in either direction
        assert [set(axis) for axis in zip(*places, strict=True)] == [set(range(5))] * 2


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
    data = Images(
        "black", torch.zeros(count, 3, side, side, dtype=torch.uint8), torch.arange(count) % 10, tuple("0123456789")
    )
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
