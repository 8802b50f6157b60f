"""The exercises that no check can answer for: derivations and open questions."""

from __future__ import annotations

__all__ = ["DERIVATIONS", "OPEN"]

DERIVATIONS = ("ex-06-fit", "ex-07-gamma", "ex-15-alpha", "ex-16-places")
"""Proofs; book/course/rubric.md says what earns their points."""

OPEN = (
    "ex-01-better-map",
    "ex-02-open",
    "ex-03-start",
    "ex-04-reuse",
    "ex-05-batches",
    "ex-06-open",
    "ex-09-open",
    "ex-11-open",
    "ex-12-open",
    "ex-13-open",
    "ex-14-open",
    "ex-15-open",
    "ex-16-open",
    "ex-17-open",
)
"""Open questions: nobody knows, or there are many answers."""
