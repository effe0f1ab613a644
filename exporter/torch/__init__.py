"""torch networks -> ONNX. This folder and `exporter.pricing.torch` alone import torch and tuning."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "export": ["BackboneExporter", "NetworkExporter", "bind", "trace"],
    },
)
