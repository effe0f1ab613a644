"""What merging streams is worth: a frozen suffix on one stacked batch, tuned blocks as one grouped convolution."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
    },
)
