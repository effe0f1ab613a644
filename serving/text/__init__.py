"""From texts to rows of ids."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "limits": ["TextLimits"],
        "tokenizers": ["Tokenizers"],
    },
)
