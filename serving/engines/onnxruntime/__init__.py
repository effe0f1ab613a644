"""ONNX Runtime: opening sessions, running them, and its caches."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "plain": ["read_plain", "refuse_plain"],
        "providers": ["CPU", "PROVIDER_CHOICES", "provider_works"],
        "runtime": ["OnnxRuntime", "session_store"],
        "segment_cache": ["NoSegmentCache", "default_cache_folder"],
        "session": ["PROVIDERS", "memory_of", "open_session", "session_options"],
    },
)
