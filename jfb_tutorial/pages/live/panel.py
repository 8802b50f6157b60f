"""A panel that trains while one watches: loss, error, residual and contraction factor, drawn anew after each epoch, with those of
earlier runs in grey."""

from __future__ import annotations

import html
import io
import threading

from ...network import ImplicitNetwork
from ...training import devices, train
from ...training.recipes import RULES, Recipe, parse
from ...training.records import Record, provenance
from ..curves import curves
from .sliders import import_widgets, with_words

__all__ = ["Panel"]

CHOICES = (
    "JFB()",
    "ImplicitDifferentiation(tol=1e-4)",
    "NeumannSeries(terms=6)",
    "UnrolledPhantom(steps=5, damping=0.5)",
    "Unrolled(steps=15)",
)
WORDS = "A panel for training live. It needs a running kernel: open this page in Jupyter and run the cell."


class Stopped(Exception):
    """The reader pressed Stop."""


class Panel:
    """Widgets that choose a rule, γ, the epochs and the seed of a recipe, and train it in a thread of their own.

    Args:
        recipe: what to train, but for these four.

    Attributes:
        records: one of each finished or stopped run, the latest last.
    """

    def __init__(self, recipe: Recipe) -> None:
        widgets = import_widgets()
        self.recipe = recipe
        self.records: list[Record] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.rule = widgets.Dropdown(options=CHOICES, description="rule")
        self.gamma = widgets.FloatSlider(0.5, min=0.1, max=3.0, step=0.1, description="γ")
        # a slider shows no number beyond its end
        self.epochs = widgets.IntSlider(recipe.epochs, min=1, max=max(60, recipe.epochs), description="epochs")
        self.seed = widgets.IntText(recipe.seed, description="seed")
        self.button = widgets.Button(description="Train")
        self.words = widgets.HTML("Choose, and press Train.")
        self.picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self.button.on_click(lambda _: self.stop() if self.running else self.start())
        self._box = widgets.VBox([self.rule, self.gamma, self.epochs, self.seed, self.button, self.words, self.picture])

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> threading.Thread:
        """Begin to train with what is chosen; returns the thread."""
        self._stop.clear()
        settings = {"gamma": self.gamma.value, "epochs": self.epochs.value, "seed": self.seed.value}
        # in a thread, so that the kernel can hear the button; a daemon, so that it can be shut down meanwhile
        thread = self._thread = threading.Thread(
            target=self._train, args=({"rule": parse("rule", self.rule.value, RULES), **settings},), daemon=True
        )
        self.button.description = "Stop"
        thread.start()
        return thread

    def stop(self) -> None:
        """Stop after the epoch that is under way."""
        self._stop.set()

    def _train(self, chosen: dict) -> None:
        rows: list[dict] = []

        def after_epoch(row: dict, network: ImplicitNetwork) -> None:
            rows.append(row)
            self._show(recipe, rows)
            # the callback is the one place where `train` can be left
            if self._stop.is_set():
                raise Stopped

        try:
            recipe = self.recipe.replace(**chosen)
            # as `train` asks for it: when the run begins
            about = provenance(devices.choose())
            run = train(recipe, callback=after_epoch)
            accuracy = run.record["result"]["test_accuracy"]
            self.words.value += f" Test accuracy: {100 * accuracy:.2f}%."
            self.records.append(run.record)
        except Stopped:
            self.words.value += " Stopped."
            self.records.append(Record(config=recipe.to_json(), seed=recipe.seed, **about, epochs=rows, result={}))
        except Exception as error:  # whatever it is, the reader is to see it
            self.words.value = html.escape(f"{type(error).__name__}: {error}")
        finally:
            self.button.description = "Train"

    def _show(self, recipe: Recipe, rows: list[dict]) -> None:
        row = rows[-1]
        words = f"Epoch {row['epoch']} of {recipe.epochs}: loss {row['loss']:.4f}"
        if "residual_worst" in row:
            words += f", {row['steps_mean']:.1f} steps, worst residual {row['residual_worst']:.1e}"
        if row.get("gamma") is not None:
            words += f", ‖∂T/∂u‖₂ = {row['gamma']:.2f}"
        self.words.value = words + "."
        file = io.BytesIO()
        curves([Record(epochs=rows)], beside=self.records).savefig(file, format="png", dpi=100)
        self.picture.value = file.getvalue()

    def __repr__(self) -> str:
        return WORDS

    def _repr_mimebundle_(self, **kwargs) -> dict | tuple:
        return with_words(self._box, WORDS, **kwargs)
