"""The same work on what one would pick instead: hand-written FastAPI, LitServe, BentoML, MLServer, Ray Serve, Triton (docs/peers.md)."""
