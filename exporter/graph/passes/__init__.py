"""Rewrites of graphs, one pass per file; `canonical` puts them in order."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "canonical": ["canonicalise"],
    },
)
