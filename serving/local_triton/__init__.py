"""A real Triton server on this machine, without Docker: fetched once, started and supervised (docs/guides/triton.md)."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "command": ["TritonOptions", "docker_command"],
        "environment": ["TritonEnvironment", "default_folder", "set_up"],
        "errors": ["NoSuchRepository", "TritonFailed", "TritonUnavailable"],
        "local": ["LocalTriton", "Signalled", "local_triton", "run_until_signalled"],
    },
)
