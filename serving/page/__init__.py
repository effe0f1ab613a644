"""The page at `/`: try tasks, and watch them. Static files of ours, and what they ask for besides the API."""

from contract.lazy import public

__all__, __getattr__ = public(__name__, {"page": ["DrawTree", "Page"]})
