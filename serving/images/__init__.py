"""From the bytes of image files to rows."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "decode": ["ImageLimits", "decode_image"],
        "workers": ["ImageWorkers"],
    },
)
