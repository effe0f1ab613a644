"""Limits have names, and hold as they are set."""

from __future__ import annotations

import http.client
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2

from contract.repository import Repository
from serving.errors import InvalidLimit
from serving.images.decode import ImageLimits
from serving.limits import Limits, changed_limits, names
from serving.protocol.http.connection.limits import HttpLimits
from serving.protocol.message_limits import MessageLimits
from serving.server import BackgroundServer
from tests.serving.protocol.test_refusals import counted

pb: Any = service_pb2
DOCS = Path(__file__).parents[3] / "docs" / "reference" / "limits.md"


def test_limits_are_set_by_name() -> None:
    assert changed_limits([]) == Limits()
    assert changed_limits(["headers=7", "strings=9", "head_s=0.5", "text_bytes=2KiB"]) == Limits(
        HttpLimits(headers=7, head_s=0.5), MessageLimits(strings=9, text_bytes=2048)
    )
    images = replace(ImageLimits(), max_bytes=1 << 23, max_total_bytes=1 << 24, max_pixels=10, max_total_pixels=20, max_scans=3)
    assert changed_limits(["image_bytes=8MiB", "image_pixels=10", "scans=3"]).images == images
    for name in names():
        assert changed_limits([f"{name}=3"]) != Limits()


@pytest.mark.parametrize(
    "wrong",
    "heads=7 headers headers=many headers=1.5 headers=0 head_s=-1 head_s=nan head_s=inf =3 headers=2KiB image_pixels=89000001".split(),
)
def test_what_sets_no_limit_is_told_what_would(wrong: str) -> None:
    with pytest.raises(InvalidLimit, match=re.escape(f"{wrong!r} sets no limit; give ")):
        changed_limits([wrong])


def test_every_name_stands_in_the_documents() -> None:
    text = DOCS.read_text()
    assert [name for name in names() if f"`{name}=" not in text] == []


@pytest.fixture(scope="module")
def narrow(repository: Repository) -> Iterator[BackgroundServer]:
    settings = "url_bytes=100 headers=12 objects=2 strings=3 text_bytes=40 fields=4 small_message_bytes=50"
    limits = changed_limits(f"{settings} image_bytes=300 image_pixels=200 files=1 sections=20".split())
    with BackgroundServer(repository, http_port=0, grpc_port=0, threads=1, limits=limits) as server:
        yield server


def tensors(count: int, **changes: Any) -> bytes:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["a"], **changes}
    return json.dumps({"inputs": [tensor] * count}).encode() + b" " * 5000  # not so short that it is read at once


def picture(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "PNG")
    return file.getvalue()


INFER = "/v2/models/late/infer"
STRIKING = {
    "url": ("/v2/" + "x" * 100, None),
    "objects": (INFER, tensors(3)),
    "strings": (INFER, tensors(1, shape=[4], data=["a"] * 4)),
    "names": (INFER, tensors(1, name="n" * 60)),
    "body": ("/predict", bytes(301)),
    "pixels": ("/predict", picture(15)),
}


@pytest.mark.parametrize("limit", STRIKING)
def test_a_limit_holds_as_it_is_set_over_http(narrow: BackgroundServer, limit: str) -> None:
    path, body = STRIKING[limit]
    before = counted(narrow).get(limit, 0)
    connection = http.client.HTTPConnection("127.0.0.1", narrow.http_port, timeout=20)
    connection.request("GET" if body is None else "POST", path, body)
    assert connection.getresponse().status in (400, 413, 414)
    connection.close()
    assert counted(narrow)[limit] == before + 1


@pytest.mark.parametrize(
    ("limit", "method", "message"),
    [
        ("small_message", "ModelReady", pb.ModelReadyRequest(name="n" * 60)),
        ("fields", "ModelInfer", pb.ModelInferRequest(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor()] * 3000)),
        ("names", "ModelInfer", pb.ModelInferRequest(model_name="n" * 5000)),
    ],
)
def test_a_limit_holds_as_it_is_set_over_grpc(narrow: BackgroundServer, limit: str, method: str, message: Any) -> None:
    before = counted(narrow).get(limit, 0)
    with grpc.insecure_channel(narrow.grpc_address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(message.SerializeToString(), timeout=20)
    assert counted(narrow)[limit] == before + 1
