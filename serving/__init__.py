"""The online half: reads a model repository and answers requests over HTTP and gRPC. Never imports torch."""

from contract.lazy import public  # (contract before ONNX Runtime is imported: it says that nothing is to be reported)

__all__, __getattr__ = public(
    __name__,
    {
        "server": ["BackgroundServer", "Server", "run"],
        "limits": ["Limits"],
        "options": ["ServerOptions"],
        "client": ["control_model", "predict", "predict_texts"],
        "router": ["Router"],
    },
)
