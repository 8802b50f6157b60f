"""Numbers in sentences: a cell names them, and the text of the chapter uses the names::

    values(cosine=f"{cosine:.3f}", epochs=18)

In the text, {glue:text}`cosine` stands for the number. The build and every edition put it in; a name that the cells do not give,
or that the text does not use, fails the build, and a number that changes fails the notebook's test.
"""

from __future__ import annotations

from numbers import Integral

__all__ = ["PREFIX", "values"]

PREFIX = "application/papermill.record/"
"""The type of output that MyST-NB's `glue` stores, and its role `glue:text` reads; so neither is needed to run a chapter."""


def values(**named: str | int) -> None:
    """Store named numbers in the output of the cell, where nobody sees them.

    Args:
        named: text as the sentence is to show it, a formatted number most often, or an integer.

    Raises:
        TypeError: a value is neither; a float has more digits than a sentence shows, and than are the same on every machine.
        ValueError: a text of several lines, or an empty one.
    """
    from IPython.display import publish_display_data

    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, str | Integral):
            raise TypeError(
                f"{name} must be text or an integer, got {value!r} of type {type(value).__name__}; write "
                f'{name}=f"{{…:.3g}}", with the digits that the sentence is to show'
            )
        text = str(value).strip()
        # splitlines knows all that begins a line, U+2028 too
        if len(text.splitlines()) != 1:
            raise ValueError(f"{name} must be one line of text, got {value!r}")
        publish_display_data(
            data={f"{PREFIX}text/plain": text}, metadata={"scrapbook": {"name": name, "mime_prefix": PREFIX}}
        )
