"""The v2 protocol over HTTP and gRPC: wire formats only; the router decides."""
