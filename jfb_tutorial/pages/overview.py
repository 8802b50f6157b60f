"""What chapter 17 gathers of the book's records: each number as the chapter has it that owns it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..training.experiments import Experiment
from .peer_record import Peers
from .problem_record import after_steps, ends, middle
from .recorded import Recorded, spread
from .sudoku_record import listed, of_rule, shares

__all__ = ["FILES", "measured"]

Row = Mapping[str, Any]

FILES = ("digits", "mnist", "criterion", "parity", "labyrinth", "sudoku", "problems", "peers")
"""Of the folder of timings."""


def measured(suites: Mapping[str, Sequence[Experiment]], book: Path | str = ".") -> dict[str, str]:
    """The numbers of chapter 17's opening and of its table.

    Args:
        suites: the list of runs, `book/runs.py`.
        book: the folder that has `records` and `timings`.
    """
    folder = Path(book)
    of = {name: json.loads((folder / f"timings/{name}.json").read_text())["result"] for name in FILES}
    return {
        **_classes(suites, folder / "records", of["mnist"]),
        "anderson_time": f"{of['digits']['ratio_to_jfb']['jfb-anderson']:.2f}",
        **_certified(of["criterion"]),
        **_algorithms(of["parity"], of["labyrinth"], of["sudoku"]),
        **_problems(of["problems"]),
        **_peers(Peers(of["peers"])),
    }


def _cpu(experiments: Iterable[Experiment]) -> list[Experiment]:
    return [each for each in experiments if each.scale == "cpu"]


def _classes(suites: Mapping[str, Sequence[Experiment]], records: Path, timed: Row) -> dict[str, str]:
    """Networks that tell pictures apart: accuracies in percent, norms after training."""
    digits, mnist = (Recorded(_cpu(suites[name]), records) for name in ("digits", "mnist"))
    cifar = Recorded(_cpu(suites["cifar10"]), records, partly=True)
    phantom = Recorded(_cpu(suites["phantom"]), records)

    def percent(of: Recorded, label: str, digits: int = 2) -> str:
        return spread(100 * of.result(label), digits)

    return {
        "digits_jfb": percent(digits, "jfb"),
        "digits_exact": percent(digits, "exact"),
        "digits_twin": percent(digits, "explicit"),
        "digits_steps": f"{digits.end('jfb', 'steps_mean'):.1f}",
        "digits_anderson": f"{digits.end('jfb-anderson', 'steps_mean'):.1f}",
        "digits_norm": f"{digits.end('jfb', 'gamma'):.2f}",
        "mnist_jfb": percent(mnist, "jfb"),
        "mnist_exact": percent(mnist, "jacobian-batch-norm"),
        "mnist_twin": percent(mnist, "explicit"),
        "mnist_norm": f"{mnist.end('jfb', 'gamma'):.2f}",
        "mnist_twin_time": f"{timed['ratio_to_jfb']['explicit']:.2f}",
        "mnist_time": f"{timed['ratio_to_jfb']['jacobian-batch-norm']:.2f}",
        "cifar_norm": f"{cifar.end('long-jfb', 'gamma'):.2f}",
        "cifar_jfb": percent(cifar, "ablation-none", 1),
        "cifar_twin": percent(cifar, "ablation-explicit", 1),
        "clothes_jfb": percent(phantom, "phantom-jfb"),
        "clothes_exact": percent(phantom, "phantom-exact"),
        "multi_jfb": percent(phantom, "multiscale-jfb-no-dropout", 1),
        "multi_upg": percent(phantom, "multiscale-upg-5-0.5-no-dropout", 1),
        "multi_adjoint": percent(phantom, "multiscale-exact-no-dropout", 1),
        "multi_radius": f"{phantom.end('multiscale-jfb-no-dropout', 'spectral_radius'):.2f}",
    }


def _certified(measured: Row) -> dict[str, str]:
    """Chapter 12's images at which JFB descends for every loss."""
    least = [image["criterion"] for network in measured.values() for image in network["images"]]
    return {"certified": str(sum(x > 0 for x in least)), "looked_at": str(len(least))}


def _algorithms(parity: Row, labyrinth: Row, sudoku: Row) -> dict[str, str]:
    """Steps that learned an algorithm: what is right in every bit, or cell."""
    longest = [row for run in parity["lengths"] for row in run["lengths"] if row["bits"] == 512]
    large = [row for row in labyrinth["sizes"] if row["size"] == 48]
    shallow = [row for row in labyrinth["others"] if row["kind"] == "ten steps" and row["size"] == 24]
    solved = {
        rule: listed(shares(of_rule(sudoku["rules"], rule), 18, 128))
        for rule in ("JFB", "UPG, k = 5", "UPG, damped", "every step recorded")
    }
    norms = [row["norm"] for row in sudoku["training"] if row["settled"]]

    def depth(kind: str, bits: int) -> list[Row]:
        return [row for row in parity["depths"] if (row["kind"], row["bits"]) == (kind, bits)]

    def share(rows: Sequence[Row], of: str) -> str:
        return f"{100 * sum(row['right'] for row in rows) / sum(row[of] for row in rows):.3g}"

    return {
        "parity_jfb": share(longest, "strings"),
        "parity_strings": str(sum(row["strings"] for row in longest)),
        "parity_twin": share(depth("twin", 64), "strings"),
        "parity_ten_short": share(depth("shared", 16), "strings"),
        "parity_ten": share(depth("shared", 64), "strings"),
        "water_jfb": share(large, "grids"),
        "water_shallow": share(shallow, "grids"),
        "sudoku_jfb": solved["JFB"],
        "sudoku_phantom": solved["UPG, k = 5"],
        "sudoku_damped": solved["UPG, damped"],
        "sudoku_all": solved["every step recorded"],
        "sudoku_norm": f"{max(norms):.1f}",
    }


def _problems(problems: Row) -> dict[str, str]:
    """Layers that solve a problem: regret in percent, decibels."""

    def regret(choice: str) -> str:
        runs = [run for run in problems["paths"] if run["choice"] == choice]
        return middle(ends(runs, "regret"), 1)

    def decibels(rule: str) -> str:
        runs = [run for run in problems["images"] if run["rule"] == rule]
        return middle(ends(runs, "psnr"), 2)

    return {
        "paths_jfb": regret("JFB, the whole step"),
        "paths_exact": regret("exact, solved tightly"),
        "images_jfb": decibels("JFB"),
        "images_exact": decibels("exact"),
        "images_recorded": decibels("50 recorded steps"),
        "images_fifty": middle(after_steps(problems["patience"], "50 recorded steps", 50), 2),
    }


def _peers(peers: Peers) -> dict[str, str]:
    """Chapter 15's: accuracies in percent."""

    def percent(system: str) -> str:
        return spread((100 * row["test_accuracy"] for row in peers.runs(system)), 1)

    return {
        "monotone_jfb": percent("monotone, JFB"),
        "monotone_exact": percent("monotone, exact"),
        "ode": percent("neural ODE"),
    }
