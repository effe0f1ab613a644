"""The Triton engine: plans are answered by Tritons elsewhere, over the v2 protocol's gRPC (docs/triton-engine.md)."""
