"""The implicit network, and how it packs states of several parts into one tensor."""

from .implicit import ImplicitNetwork

__all__ = ["ImplicitNetwork"]
