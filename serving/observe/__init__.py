"""What the server tells about itself: metrics, logs, traces. Nothing here decides anything."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "events": ["NullObserver", "Observer", "RequestRecord"],
        "prometheus": ["Metrics", "MetricsSource"],
        "logs": ["set_up_logging"],
        "setup": ["make_observation"],
    },
)
