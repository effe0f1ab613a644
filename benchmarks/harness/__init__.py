"""What benchmarks measure with: clocks, loops, clients, and what else the machine did."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "noise": ["RULE", "Measurement", "NoiseWatch", "measure_quietly"],
        "pinning": ["Cores", "find_cores", "on_cores"],
        "timing": ["Clock", "Timing", "Variants", "interleave", "summarise", "take_samples"],
    },
)
