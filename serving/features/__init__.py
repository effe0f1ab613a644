"""Features outlive a request: what shared segments gave is kept by a hash of what they took, for whoever sends the same again."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "cached_engine": ["CachedEngine", "with_feature_cache"],
        "cache": ["FeatureCache", "FeatureStatistics"],
    },
)
