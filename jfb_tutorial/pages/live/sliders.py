"""What the live figures share: sliders over a picture that is computed anew whenever one of them moves."""

from __future__ import annotations

import html
import io
from abc import ABC, abstractmethod
from base64 import b64encode
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..figures import style

__all__ = ["Live", "import_widgets", "with_words"]

WAKE = "In Jupyter, run this cell to move its sliders."
_MISTAKES = (TypeError, ValueError, RuntimeError, FloatingPointError, IndexError)
"""What a map of the reader's own may raise; anything else is a fault of ours, and is to be seen as one."""


def import_widgets() -> Any:
    """ipywidgets, or an error that says how to get it."""
    try:
        import ipywidgets
    except ImportError:
        raise ImportError("a live figure needs ipywidgets; pip install ipywidgets") from None
    return ipywidgets


class Live(ABC):
    """A picture and a sentence about it, computed from the values of sliders.

    Args:
        alt: what the picture that it begins with shows, in words: the alternative text of the published page.
        controls: by name, the sliders; each computes anew when it is let go.

    Attributes:
        controls: these.
        words: the sentence, a widget; where the reader's map is refused, why.
        picture: the picture, a widget.
    """

    def __init__(self, alt: str, **controls: Any) -> None:
        widgets = import_widgets()
        self.alt = f"{alt} {WAKE}"
        self.controls = controls
        self.words = widgets.HTML()
        self.picture = widgets.Image(format="png", layout=widgets.Layout(width="480px", max_width="100%"))
        self._box = widgets.VBox([*controls.values(), self.words, self.picture])
        for control in controls.values():
            control.continuous_update = False  # a step of a slider may take a second
            control.style.description_width = "9em"
            control.observe(lambda _: self.update(), "value")
        self.update()

    @abstractmethod
    def draw(self, **values: Any) -> tuple[Figure, str]:
        """The picture at these values of the sliders, and what to say of it."""

    def update(self) -> None:
        """Compute picture and words from the sliders as they stand."""
        try:
            with plt.rc_context(style()):
                figure, words = self.draw(**{name: control.value for name, control in self.controls.items()})
        except _MISTAKES as error:
            # the old picture would pass for one of the new values
            self.picture.value, self.words.value = b"", html.escape(f"This map cannot be used: {error}.")
            return
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
        plt.close(figure)
        self.picture.value, self.words.value = file.getvalue(), html.escape(words)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, **kwargs: Any) -> dict | tuple:
        return with_words(self._box, self.alt, self.picture.value, **kwargs)


def with_words(box: Any, words: str, png: bytes = b"", **kwargs: Any) -> dict | tuple:
    """The bundle of a widget, with words and a picture for where there is no kernel."""
    shown = box._repr_mimebundle_(**kwargs)
    # Jupyter takes a bundle alone or with its metadata; the widget's own text would be its repr
    data, *more = shown if isinstance(shown, tuple) else (shown,)
    data = {**(data or {}), "text/plain": words}
    if png:
        data["image/png"] = b64encode(png).decode()
        more = [{**(more[0] if more else {}), "image/png": {"alt": words, "width": 480}}]
    return (data, *more) if more else data
