"""One network as a graph: its canonical form, its cut points, its blocks and their digests."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "chain": ["Block", "Chain", "Tap"],
        "network": ["Network", "make_chain"],
        "digests": ["weight_digest"],
        "macs": ["PRODUCTS"],
        "shapes": ["infer_shapes", "shape_of"],
    },
)
