"""Text for language models: a plain file as characters, a folder of three files as words; token numbers in one long row.

Looked for under the data root (`data.data_root()`, `$JFB_DATA`), each file as it is or packed by gzip (`NAME.gz`):

    tinyshakespeare/input.txt                        characters; the first 90% are for training, 5% to choose by, 5% to test on
    ptb/ptb.train.txt, ptb.valid.txt, ptb.test.txt   words, a sentence a line, `<eos>` at its end

Shakespeare is public domain; the file is that of github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt. **Penn Treebank is not
openly licensed.** Its text is that of the Wall Street Journal, under the agreement of the Linguistic Data Consortium (LDC99T42); the form
meant here, with a vocabulary of 10,000, is Mikolov's, widely copied. Nothing of it comes with this book, nothing is downloaded, and
nothing of it is printed: whoever may use it puts the three files there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from .._checks import check_choice, check_integer
from .data import DataNotFoundError, data_root
from .files import plain_or_packed, unpacked

__all__ = ["SPLITS", "Text", "characters", "cut", "load", "windows", "words"]

SPLITS = ("train", "valid", "test")
PARTS = (0.9, 0.95)
"""Where a file of characters is cut into train, valid and test."""
END = "<eos>"
UNKNOWN = "<unk>"

SHA256 = {
    "tinyshakespeare/input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "ptb/ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb/ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb/ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}
"""Sums of the files as they are unpacked."""

GET = {
    "tinyshakespeare": "put there the file data/tinyshakespeare/input.txt of github.com/karpathy/char-rnn (1,115,394 bytes)",
    "ptb": "it is not openly licensed (the Linguistic Data Consortium's LDC99T42), so that it neither comes along nor is downloaded: "
    "if you may use it, put ptb.train.txt, ptb.valid.txt and ptb.test.txt there, in Mikolov's form with 10,000 words",
}
"""How one gets a text that is not there."""


# no ==: two tensors compared give a tensor
@dataclass(frozen=True, eq=False, repr=False)
class Text:
    """One part of a text.

    Attributes:
        name: of the text.
        split: "train", "valid" or "test".
        tokens: `(N,)`, int64, numbers of `vocabulary`.
        vocabulary: the characters, or the words, of all parts alike.
    """

    name: str
    split: str
    tokens: Tensor
    vocabulary: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        # never the text itself: not all of them may be shown
        return f"Text({self.name}, {self.split}: {len(self):,} tokens, {len(self.vocabulary):,} different ones)"


def load(name: str, split: str = "train", *, root: Path | str | None = None) -> Text:
    """A published text, its files checked against their SHA-256 sums.

    Args:
        name: "tinyshakespeare", in characters, or "ptb", in words.
        split: "train", "valid" or "test".
        root: where to look; `data_root()` by default.

    Raises:
        DataNotFoundError: a file is not there; the message says where it was looked for and how to get it.
        ValueError: an unknown name or split, or a file that is not the published one.
    """
    check_choice("text", name, tuple(GET))
    check_choice("split", split, SPLITS)
    folder = (data_root() if root is None else Path(root).expanduser()) / name
    for path, sum_ in SHA256.items():
        if path.startswith(f"{name}/"):
            _check_sum(folder.parent, path, sum_)
    return characters(folder / "input.txt", split) if name == "tinyshakespeare" else words(folder, split)


def characters(path: Path | str, split: str = "train") -> Text:
    """A part of a plain text file, `path` or `path.gz`, in characters, its vocabulary those of the whole file.

    Raises:
        DataNotFoundError: there is no such file.
        ValueError: it is no UTF-8, or too short to be cut in three.
    """
    check_choice("split", split, SPLITS)
    path = Path(path)
    text = _read(path)
    vocabulary = tuple(sorted(set(text)))
    numbers = {character: number for number, character in enumerate(vocabulary)}
    ends = [0, *(int(part * len(text)) for part in PARTS), len(text)]
    if any(a == b for a, b in pairwise(ends)):
        raise ValueError(
            f"{path} must hold at least 20 characters, to be cut in three, has {len(text)}; take a longer text"
        )
    k = SPLITS.index(split)
    tokens = torch.tensor([numbers[character] for character in text[ends[k] : ends[k + 1]]])
    return Text(path.parent.name, split, tokens, vocabulary)


def words(folder: Path | str, split: str = "train") -> Text:
    """A part of a text in words: `NAME.{train,valid,test}.txt` or `….txt.gz` in a folder NAME; the vocabulary is that of train.

    A line is a sentence, to whose words `<eos>` is added. A word that train has not becomes `<unk>`.

    Raises:
        DataNotFoundError: a file is not there.
        ValueError: a file is no UTF-8 or has no words, or there is an unknown word and no `<unk>`.
    """
    check_choice("split", split, SPLITS)
    folder = Path(folder)
    known = _words(folder, "train")
    vocabulary = tuple(sorted(set(known)))
    numbers = {word: number for number, word in enumerate(vocabulary)}
    found = known if split == "train" else _words(folder, split)
    strange = sum(word not in numbers for word in found)
    if strange and UNKNOWN not in numbers:
        raise ValueError(
            f"{folder.name}, {split}: {strange} words do not occur in train, which has no {UNKNOWN} for them; replace rare words by it"
        )
    tokens = torch.tensor([numbers[word if word in numbers else UNKNOWN] for word in found])
    return Text(folder.name, split, tokens, vocabulary)


def windows(tokens: Tensor, count: int, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of a text and, for each place of them, the token that follows; both `(count, context)`.

    Raises:
        ValueError: the text is not longer than the context.
    """
    _check_length(tokens, context)
    starts = torch.randint(len(tokens) - context, (count, 1), generator=generator)
    at = starts + torch.arange(context)
    return tokens[at], tokens[at + 1]


def cut(tokens: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """The text cut into windows that follow one another, what is left over dropped, and the tokens that follow each place.

    Returns:
        Two of `(windows, context)`.

    Raises:
        ValueError: the text is not longer than the context.
    """
    _check_length(tokens, context)
    count = (len(tokens) - 1) // context
    d, y = (tokens[k : k + count * context].reshape(count, context) for k in (0, 1))
    return d, y


def _check_length(tokens: Tensor, context: int) -> None:
    check_integer("context", context, 1, "64 is the default")
    if tokens.ndim != 1 or len(tokens) <= context:
        raise ValueError(
            f"tokens must be one row longer than the context of {context}, got shape {tuple(tokens.shape)}; take a shorter context"
        )


def _words(folder: Path, split: str) -> list[str]:
    path = folder / f"{folder.name}.{split}.txt"
    found = [word for line in _read(path).splitlines() for word in (*line.split(), END)]
    if not found:
        raise ValueError(f"{path} has no words; a sentence a line is expected")
    return found


def _bytes(path: Path) -> bytes:
    """Of a file, or of the one beside it that is packed."""
    if found := plain_or_packed(path):
        return unpacked(found)
    name = path.parent.name
    remedy = GET.get(name, "put the file there, as it is or packed by gzip")
    raise DataNotFoundError(f"neither {path} nor {path.name}.gz beside it is there", f"{remedy[0].upper()}{remedy[1:]}")


def _read(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text (byte {error.start:,}); convert it") from None


def _check_sum(root: Path, name: str, sum_: str) -> None:
    found = hashlib.sha256(_bytes(root / name)).hexdigest()
    if found != sum_:
        raise ValueError(
            f"{root / name} is not the published file (SHA-256 {found[:12]}…, not {sum_[:12]}…); put that one there, or read your "
            "own with texts.characters or texts.words"
        )
