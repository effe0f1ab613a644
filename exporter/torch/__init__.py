"""torch networks -> ONNX. This folder and `exporter.pricing.torch` alone import torch and tuning."""
