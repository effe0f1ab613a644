"""The networks and repositories that benchmarks measure."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "families": [
            "CLASSES",
            "HEAD",
            "RANDOM_WEIGHTS",
            "NetworkCache",
            "TimmNetwork",
            "choose_networks",
            "first_tasks",
            "network_cache",
            "networks",
        ],
        "separate": ["SEPARATE", "SIDE_BY_SIDE", "SideBySide", "fastest", "open_network"],
        "synthetic": ["Family", "make_family", "random_backbone"],
        "tiny": ["write_tiny_family"],
    },
)
