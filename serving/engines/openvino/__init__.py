"""OpenVINO: compiling segments for the CPU in fp32 or bf16, and running them."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "package": ["has_bf16"],
        "runtime": ["OpenVinoRuntime"],
    },
)
