"""Training: recipes, data, the loop, what it leaves behind, and what is measured on the way."""

from .loop import Run, train

__all__ = ["Run", "train"]
