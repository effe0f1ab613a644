"""What serving one more task would cost, before it is tuned."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "price": ["AddedCost", "Pricing", "part_after"],
        "torch": ["open_pricing"],
    },
)
