"""Sets of graphs in the text files of the collection TUDataset (Morris et al. 2020), plain or packed with gzip.

A set `NAME` is looked for under the data root as `NAME/NAME_A.txt`, as `graphs/NAME/NAME_A.txt` and, where torch_geometric keeps what it has
downloaded, as `TUDataset/NAME/raw/NAME_A.txt`; each file may end in `.gz`. Read are the edges, the graph and the label of each node, and the
class of each graph. Weights or labels of edges and further attributes of nodes are not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .data import DataNotFoundError, data_root
from .files import plain_or_packed, unpacked

__all__ = ["GRAPH_SETS", "GraphSet", "load_graphs"]

GRAPH_SETS = ("COX2", "PROTEINS", "MUTAG", "PTC_MR", "NCI1")
"""The five sets on which IGNN was published, and of which the numbers are known."""
FILES = ("A", "graph_indicator", "graph_labels", "node_labels")

SHA256 = {
    "COX2": "3f48e445045cdc4961fc9a570ac7670f93fbd0b36f81f59e0598a222d0f30fab",
    "PROTEINS": "ce9af36a15724ca34bdb28c6b4e3a43f00a2e243b7c69ee56d873f21b3a4ad42",
    "MUTAG": "3dd446d13c16daacc4afd8831203895fb66f360457be058cc0a59a4dd9261753",
    "PTC_MR": "fa25e4ed8e202a82cb689c1e6d9e502a7047b6be9762679eee36d9f9623251b8",
    "NCI1": "d01081f26629ebe5661da44d8c059a52259b454f4d0835c760d81602e81a2992",
}
"""Of the numbers, and not of the bytes: the copies in circulation differ in their line ends. See `_digest`."""


# no ==: two arrays compared give an array
@dataclass(frozen=True, eq=False, repr=False)
class GraphSet:
    """Graphs with a label at each node and a class each; the nodes of a graph lie side by side.

    Attributes:
        name: the set's name.
        edges: `(2, E)`, int64: from node to node, numbered through the whole set. Every edge is there in both directions.
        node_labels: `(N,)`, int64, from 0.
        graph: `(N,)`, int64, ascending: of each node the graph.
        labels: `(G,)`, int64, from 0: the classes of the graphs.
        features: number of columns that a one-hot encoding of `node_labels` takes: the largest label plus 1, used or not.
        classes: number of classes.
    """

    name: str
    edges: np.ndarray
    node_labels: np.ndarray
    graph: np.ndarray
    labels: np.ndarray
    features: int
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def starts(self) -> np.ndarray:
        """`(G + 1,)`: graph g has the nodes `starts[g]` to `starts[g + 1] − 1`."""
        return np.searchsorted(self.graph, np.arange(len(self) + 1))

    def __repr__(self) -> str:
        edges = self.edges.shape[1] // 2
        return f"GraphSet({self.name}: {len(self):,} graphs, {len(self.graph):,} nodes, {edges:,} edges, {self.classes} classes)"


def load_graphs(name: str, *, root: Path | str | None = None) -> GraphSet:
    """A set of graphs, whole.

    Classes are numbered from 0 in the order of the labels in the file. Node labels are shifted so that the smallest is 0, and not
    renumbered: COX2 uses 8 of 35, and the published networks have a column for each of the 35. Repeated edges and loops are dropped.

    Args:
        name: one of `GRAPH_SETS`, whose numbers are checked by SHA-256, or the name of another set in this format.
        root: where to look; `data_root()` by default.

    Raises:
        TypeError: a name of another type.
        DataNotFoundError: the set is not there; the message says where it was looked for, and how to get it.
        ValueError: files that do not fit together, an edge in one direction only or between graphs, or other numbers than the published ones.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a text, got {type(name).__name__}; {', '.join(GRAPH_SETS)} are known")
    root = data_root() if root is None else Path(root).expanduser()
    folder = _folder(name, root)
    edges, graph, classes, node_labels = (_read(_file(folder, name, part), part) for part in FILES)
    if name in SHA256 and _digest(edges, graph, classes, node_labels) != SHA256[name]:
        raise ValueError(
            f"{name} is damaged: the numbers in {folder} are not the published ones. Remove the folder. {_ways(name, root)}"
        )
    return _checked(name, folder, edges, graph, classes, node_labels)


def _places(name: str, root: Path) -> list[Path]:
    return [root / name, root / "graphs" / name, root / "TUDataset" / name / "raw"]


def _folder(name: str, root: Path) -> Path:
    """Where the set lies."""
    places = _places(name, root)
    for place in places:
        if plain_or_packed(place / f"{name}_A.txt"):
            return place
    looked = " nor ".join(str(place / f"{name}_A.txt") for place in places)
    raise DataNotFoundError(
        f"{name} was not found: neither {looked} is there, nor one of them with .gz "
        f"(the data root is {root}, $JFB_DATA changes it)",
        _ways(name, root),
    )


def _ways(name: str, root: Path) -> str:
    if name not in GRAPH_SETS:
        return f"To get it: put {', '.join(f'{name}_{part}.txt' for part in FILES)} into {root / name}; known are {', '.join(GRAPH_SETS)}"
    return (
        f"Two ways to get it: unpack {name}.zip of the collection TUDataset to {root / name}, or let torch_geometric fetch it: "
        f"TUDataset({str(root / 'TUDataset')!r}, {name!r})"
    )


def _file(folder: Path, name: str, part: str) -> Path:
    path = folder / f"{name}_{part}.txt"
    if found := plain_or_packed(path):
        return found
    raise DataNotFoundError(f"{name} is there but for {path}", f"{_ways(name, folder.parent)}, all four files")


def _read(path: Path, part: str) -> np.ndarray:
    """The integers of a file: `(E, 2)` of the edges, `(N,)` of the others."""
    try:
        content = unpacked(path).replace(b",", b" ").split()
        numbers = np.array(content, dtype=np.int64)
    # a damaged gzip file is an EOFError or an OSError, a letter a ValueError
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as integers ({error}); remove it, and get the file again") from None
    if part != "A":
        return numbers
    if len(numbers) % 2:
        raise ValueError(f"{path} should hold two numbers a line, and holds {len(numbers):,}; get the file again")
    return numbers.reshape(-1, 2)


def _digest(edges: np.ndarray, graph: np.ndarray, classes: np.ndarray, node_labels: np.ndarray) -> str:
    """SHA-256 of the numbers as little-endian 64-bit integers, the edges sorted."""
    edges = edges[np.lexsort(edges.T[::-1])]
    return hashlib.sha256(
        b"".join(part.astype("<i8").tobytes() for part in (edges, graph, classes, node_labels))
    ).hexdigest()


def _checked(
    name: str, folder: Path, edges: np.ndarray, graph: np.ndarray, classes: np.ndarray, node_labels: np.ndarray
) -> GraphSet:
    def refuse(fault: str) -> ValueError:
        return ValueError(f"{name} in {folder} does not fit together: {fault}; get the files again")

    nodes = len(graph)
    if not nodes or len(node_labels) != nodes:
        raise refuse(f"{nodes:,} nodes have a graph and {len(node_labels):,} a label")
    if (np.diff(graph) < 0).any() or not np.array_equal(np.unique(graph), np.arange(1, len(classes) + 1)):
        raise refuse(f"the nodes must belong to the graphs 1 to {len(classes):,}, in this order")
    if len(edges) and not 1 <= edges.min() <= edges.max() <= nodes:
        raise refuse(f"edges join the nodes {edges.min():,} to {edges.max():,}, of {nodes:,}")
    edges = np.unique(edges[edges[:, 0] != edges[:, 1]] - 1, axis=0)
    if (graph[edges[:, 0]] != graph[edges[:, 1]]).any():
        raise refuse("an edge joins two graphs")
    turned = edges[:, ::-1]
    if not np.array_equal(edges, turned[np.lexsort(turned.T[::-1])]):
        raise refuse("an edge is there in one direction only")
    labels = np.unique(classes, return_inverse=True)[1].astype(np.int64)
    node_labels = node_labels - node_labels.min()
    return GraphSet(
        name, edges.T.copy(), node_labels, graph - 1, labels, int(node_labels.max()) + 1, int(labels.max()) + 1
    )
