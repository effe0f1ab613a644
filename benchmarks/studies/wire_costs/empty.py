"""A server that does nothing, on what ours stands on: `python -m benchmarks.studies.wire_costs.empty unary|reads`, and what is after that.

HTTP: uvicorn with httptools on uvloop, an ASGI application that reads the body and answers a few bytes. gRPC: a handler of grpc.aio that
answers a few bytes, bytes in and bytes out. unary: gRPC reads the message; reads: the handler does, as ours does, because else gRPC tells
nobody of half a message.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvicorn
import uvloop

from serving.process.sockets import listening_socket

_ANSWER = b"x" * 150  # about as many bytes as an answer of a tiny network


async def _app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    length = b"%d" % len(_ANSWER)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": _ANSWER})


async def _unary(request: bytes, context: Any) -> bytes:
    return _ANSWER


async def _reads(requests: Any, context: Any) -> bytes:
    await context.read()
    return _ANSWER


async def _serve(kind: str) -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(_unary) if kind == "unary" else grpc.stream_unary_rpc_method_handler(_reads)
    generic = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with listening_socket("127.0.0.1", 0) as listener:
        config = uvicorn.Config(_app, http="httptools", interface="asgi3", lifespan="off", log_config=None, access_log=False)
        print(f"Serving on http://127.0.0.1:{listener.getsockname()[1]} and grpc://127.0.0.1:{port}", flush=True)
        await uvicorn.Server(config).serve([listener])
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
