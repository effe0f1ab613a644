"""The online half: reads a model repository and answers requests over HTTP and gRPC. Never imports torch."""
