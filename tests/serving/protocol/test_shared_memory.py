"""System shared memory: tritonclient's own regions over both protocols, and everything that could go wrong with them."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
import tritonclient.utils.shared_memory as shm
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from contract.errors import InvalidRequest
from contract.repository import ALL_TASKS, Repository
from serving.errors import BodyTooLarge, UnknownRegion
from serving.protocol.shared_memory import MAX_REGIONS, RequestMemory, SharedMemory
from serving.server import BackgroundServer
from tests.serving.nets import images, whole

SIZE = 4096
LIMIT_BYTES = 100_000


class Client:
    """A client of one of the protocols and a shared memory object of its own, registered under the object's name."""

    def __init__(self, module: ModuleType, server: BackgroundServer, handle: Any) -> None:
        self.module, self.handle = module, handle
        self.is_http = module is tritonclient.http
        self.client = module.InferenceServerClient(server.http_address if self.is_http else server.grpc_address)
        self.region = handle._triton_shm_name
        self.key = handle._shm_key

    def register(self, byte_size: int = SIZE, offset: int = 0, name: str | None = None, key: str | None = None) -> None:
        self.client.register_system_shared_memory(name or self.region, key or self.key, byte_size, offset=offset)

    def status(self) -> dict[str, tuple[str, int, int]]:
        if self.is_http:
            found = self.client.get_system_shared_memory_status()
        else:
            found = self.client.get_system_shared_memory_status().regions.values()
            found = [{"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.byte_size} for r in found]
        return {region["name"]: (region["key"], region["offset"], region["byte_size"]) for region in found}

    def infer(self, size: int, offset: int = 0, output: tuple[int, int] | None = None, region: str | None = None) -> Any:
        tensor = self.module.InferInput("image", [2, 8, 8, 3], "UINT8")
        tensor.set_shared_memory(region or self.region, size, offset=offset)
        wanted = self.module.InferRequestedOutput("late")
        if output is not None:
            wanted.set_shared_memory(self.region, output[0], offset=output[1])
        return self.client.infer("late", [tensor], outputs=[wanted])

    def refused(self, call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
        """Return the status, in HTTP's words or gRPC's, and the sentence."""
        with pytest.raises(InferenceServerException) as caught:
            call(*arguments, **options)
        return str(caught.value.status()).removeprefix("StatusCode."), caught.value.message()


@pytest.fixture(scope="module")
def server(repository: Repository) -> Iterator[BackgroundServer]:
    with BackgroundServer(
        repository, http_port=0, grpc_port=0, threads=1, shared_memory=True, max_body_bytes=LIMIT_BYTES
    ) as running:
        yield running


@pytest.fixture
def handle() -> Iterator[Any]:
    name = f"espalier-{uuid.uuid4().hex}"
    made = shm.create_shared_memory_region(name, f"/{name}", SIZE)
    yield made
    shm.destroy_shared_memory_region(made)


@pytest.fixture(params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: BackgroundServer, handle: Any) -> Iterator[Client]:
    made = Client(request.param, server, handle)
    yield made
    made.client.unregister_system_shared_memory()
    made.client.close()


ROWS = images(2)
OUTPUT_BYTES = 2 * 4 * 4


def test_regions_come_and_go(client: Client) -> None:
    assert "system_shared_memory" in client.client.get_server_metadata()["extensions"] if client.is_http else True
    client.register(100, offset=8)
    client.register(50, name="other")
    assert client.status() == {client.region: (client.key, 8, 100), "other": (client.key, 0, 50)}
    client.client.unregister_system_shared_memory("other")
    client.client.unregister_system_shared_memory("never there")  # no error, as on Triton
    assert client.status().keys() == {client.region}
    client.client.unregister_system_shared_memory()
    assert client.status() == {}


def test_inputs_and_outputs_in_shared_memory(client: Client) -> None:
    client.register(SIZE - 16, offset=16)
    shm.set_shared_memory_region(client.handle, [ROWS], offset=16 + 40)
    result = client.infer(ROWS.nbytes, offset=40, output=(OUTPUT_BYTES + 5, 1000))
    found = shm.get_contents_as_numpy(client.handle, np.float32, [2, 4], offset=16 + 1000)
    np.testing.assert_allclose(found, whole("late", ROWS), rtol=1e-4, atol=1e-5)
    described = result.get_response() if client.is_http else result.get_response(as_json=True)
    (described,) = described["outputs"]
    assert list(described["shape"]) in ([2, 4], ["2", "4"])
    assert described.keys() == {"name", "datatype", "shape"}  # in parameters, Triton's C++ client wants the size of binary data
    np.testing.assert_allclose(  # a tensor in shared memory, the answer in the response
        client.infer(ROWS.nbytes, offset=40).as_numpy("late"), whole("late", ROWS), rtol=1e-4, atol=1e-5
    )


def test_outputs_in_and_out_of_shared_memory_mix(client: Client) -> None:
    client.register()
    tensor = client.module.InferInput("image", [2, 8, 8, 3], "UINT8")
    tensor.set_data_from_numpy(ROWS)
    wanted = [client.module.InferRequestedOutput(name) for name in ("probe", "late", "colour")]
    wanted[1].set_shared_memory(client.region, OUTPUT_BYTES)
    result = client.client.infer(ALL_TASKS, [tensor], outputs=wanted)
    for task in ("probe", "colour"):
        np.testing.assert_allclose(result.as_numpy(task), whole(task, ROWS), rtol=1e-4, atol=1e-5)
    assert client.is_http or [len(raw) for raw in result.get_response().raw_output_contents] == [24, 0, 24]
    found = shm.get_contents_as_numpy(client.handle, np.float32, [2, 4])
    np.testing.assert_allclose(found, whole("late", ROWS), rtol=1e-4, atol=1e-5)


def test_regions_that_cannot_be_are_refused(client: Client) -> None:
    bad, invalid = "400" if client.is_http else "INVALID_ARGUMENT", client.refused
    large = 2**63  # what fits into a signed 64-bit integer does not
    for byte_size, offset, words in (
        (SIZE + 1, 0, f"has {SIZE} bytes, but the region needs {SIZE + 1}"),
        (SIZE, 1, f"the region needs {SIZE + 1}"),
        (1, large, "the region needs"),
        (large, large, "the region needs"),
        (0, 0, "the offset is at least 0, the size 1"),
    ):
        status, sentence = invalid(client.register, byte_size, offset)
        assert (status, words in sentence) == (bad, True), sentence
    if client.is_http:
        assert "the offset is at least 0" in invalid(client.register, 10, -1)[1]
    client.register()
    assert "registered already; unregister it first" in invalid(client.register)[1]
    assert client.status().keys() == {client.region}


@pytest.mark.parametrize(
    "key", ["/", "//", ".", "/..", "a/b", "/../etc/passwd", "../../etc/passwd", "a\0b", "x" * 300, "no-such-object"]
)
def test_keys_name_one_shared_memory_object_and_nothing_else(client: Client, key: str) -> None:
    status, sentence = client.refused(client.register, key=key)
    assert status == ("400" if client.is_http else "INVALID_ARGUMENT")
    assert "shared memory object" in sentence
    assert "passwd" not in sentence


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_objects_in_which_triton_passes_on_what_others_sent_are_not_registered(client: Client, slashes: str) -> None:
    key = f"{slashes}triton_python_backend_shm_region_{uuid.uuid4().hex}"
    path = Path("/dev/shm") / key.lstrip("/")
    path.write_bytes(bytes(SIZE))
    try:
        status, sentence = client.refused(client.register, key=key)
        assert status == ("400" if client.is_http else "INVALID_ARGUMENT")
        assert "are Triton's own; give yours another key" in sentence
    finally:
        path.unlink()


def test_links_pipes_and_folders_are_not_followed(client: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * SIZE)
    link, pipe, folder = (Path("/dev/shm") / f"{client.region}-{kind}" for kind in ("link", "pipe", "folder"))
    link.symlink_to(secret)
    os.mkfifo(pipe)
    folder.mkdir()
    try:
        for path in (link, pipe, folder):
            assert "no shared memory object" in client.refused(client.register, key=path.name, byte_size=1)[1]
    finally:
        link.unlink()
        pipe.unlink()
        folder.rmdir()


def test_places_outside_a_region_are_refused(client: Client) -> None:
    client.register(1000)
    bad = "400" if client.is_http else "INVALID_ARGUMENT"
    size = ROWS.nbytes
    for arguments, words in (
        ((size, 1000 - size + 1), "do not lie within the shared memory region, which has 1000 bytes"),
        ((size, 2**62), "do not lie within"),
        ((2**62, 2**62), "do not lie within"),
        ((size, -1), "do not lie within"),
        ((-1, 0), "do not lie within"),
        ((size - 1, 0), f"takes {size} bytes, but {size - 1} were sent"),
        ((size, 0, (OUTPUT_BYTES, 1000)), "do not lie within"),
        ((size, 0, (OUTPUT_BYTES - 1, 0)), f"takes {OUTPUT_BYTES} bytes, but its place in shared memory has {OUTPUT_BYTES - 1}"),
    ):
        status, sentence = client.refused(client.infer, *arguments)
        assert (status, words in sentence) == (bad, True), sentence
    status, sentence = client.refused(client.infer, size, 0, None, "nobody")
    assert status == ("404" if client.is_http else "NOT_FOUND")
    assert "is not registered" in sentence
    assert "nobody" not in sentence
    with pytest.raises(InferenceServerException, match="is not registered"):
        client.client.get_system_shared_memory_status("nobody")


def test_an_object_that_was_made_smaller_kills_nothing(client: Client) -> None:
    client.register()
    os.truncate(f"/dev/shm/{client.region}", 100)
    assert "has become smaller" in client.refused(client.infer, ROWS.nbytes)[1]
    os.truncate(f"/dev/shm/{client.region}", ROWS.nbytes)
    refused = client.refused(client.infer, ROWS.nbytes, 0, (OUTPUT_BYTES, 1000))
    assert f"has {ROWS.nbytes} bytes, but the region needs {1000 + OUTPUT_BYTES}" in refused[1]
    assert client.client.is_server_live()


def test_a_tensor_comes_one_way_only(client: Client) -> None:
    client.register()
    if client.is_http:
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1], "data": [1]}
        place = {"shared_memory_region": client.region, "shared_memory_byte_size": 1}
        response = client.client._post(
            "v2/models/late/infer", json.dumps({"inputs": [{**tensor, "parameters": place}]}), None, None
        )
        assert (response.status_code, b"comes with the request, too" in response.read()) == (400, True)
        return
    request = service_pb2.ModelInferRequest(model_name="late", raw_input_contents=[b"1"])
    entry = request.inputs.add(name="image", datatype="UINT8", shape=[1])
    entry.parameters["shared_memory_region"].string_param = client.region
    entry.parameters["shared_memory_byte_size"].int64_param = 1
    with pytest.raises(Exception, match="0 inputs, but 1 raw_input_contents"):
        client.client._client_stub.ModelInfer(request)
    request.ClearField("raw_input_contents")
    entry.contents.uint_contents.append(1)
    with pytest.raises(Exception, match="both raw and typed contents"):
        client.client._client_stub.ModelInfer(request)


@pytest.mark.parametrize("module", [tritonclient.http.aio, tritonclient.grpc.aio], ids=["http", "grpc"])
def test_the_asynchronous_clients(module: ModuleType, server: BackgroundServer, handle: Any) -> None:
    async def work() -> None:
        address = server.http_address if module is tritonclient.http.aio else server.grpc_address
        async with module.InferenceServerClient(address) as client:
            await client.register_system_shared_memory("r", handle._shm_key, SIZE)
            shm.set_shared_memory_region(handle, [ROWS])
            tensor = module.InferInput("image", [2, 8, 8, 3], "UINT8")
            tensor.set_shared_memory("r", ROWS.nbytes)
            wanted = module.InferRequestedOutput("late")
            wanted.set_shared_memory("r", OUTPUT_BYTES, offset=1000)
            await client.infer("late", [tensor], outputs=[wanted])
            found = shm.get_contents_as_numpy(handle, np.float32, [2, 4], offset=1000)
            np.testing.assert_allclose(found, whole("late", ROWS), rtol=1e-4, atol=1e-5)
            await client.unregister_system_shared_memory("r")

    asyncio.run(work())


def test_cuda_shared_memory_is_not_offered(client: Client) -> None:
    check_no_regions(client.client, "cuda", "region", b"aGFuZGxl", 0, 10)


def check_no_regions(client: Any, kind: str, *region: Any) -> None:
    """Unregistering is what Triton's examples begin with, whatever memory they use; only to register a `region` is refused."""
    getattr(client, f"unregister_{kind}_shared_memory")()
    getattr(client, f"unregister_{kind}_shared_memory")("region")
    found = getattr(client, f"get_{kind}_shared_memory_status")()
    assert not (found if isinstance(found, list) else found.regions)
    with pytest.raises(InferenceServerException, match="is not registered") as caught:
        getattr(client, f"get_{kind}_shared_memory_status")("region")
    assert caught.value.status() in ("404", "StatusCode.NOT_FOUND")
    with pytest.raises(InferenceServerException, match=rf"(?i){kind} shared memory is not offered by this server") as caught:
        getattr(client, f"register_{kind}_shared_memory")(*region)
    assert caught.value.status() in ("501", "StatusCode.UNIMPLEMENTED")


@pytest.fixture
def memory(handle: Any) -> SharedMemory:
    made = SharedMemory(max_bytes=1000)
    made.register("r", handle._shm_key, 0, SIZE)
    return made


def test_a_request_finishes_on_a_region_that_is_unregistered(memory: SharedMemory, handle: Any) -> None:
    slot = memory.slot("r", 5, 4)
    file = slot.region._file
    memory.unregister()
    slot.write("y", b"done")
    assert bytes(handle._mpsm_handle.buf[5:9]) == slot.read() == b"done"
    with pytest.raises(UnknownRegion):
        memory.slot("r", 0, 1)
    del slot
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_one_request_reads_no_more_than_the_limit(memory: SharedMemory) -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 600}
    request = RequestMemory(memory)
    assert request.read(place, "Input 'a'") == bytes(600)
    with pytest.raises(BodyTooLarge):
        request.read(place, "Input 'b'")
    assert RequestMemory(memory).read(place, "Input 'a'") == bytes(600)


def test_regions_are_limited_in_number(memory: SharedMemory, handle: Any) -> None:
    for number in range(MAX_REGIONS - 1):
        memory.register(f"r{number}", handle._shm_key, 0, 1)
    with pytest.raises(InvalidRequest, match=f"There are {MAX_REGIONS} shared memory regions"):
        memory.register("more", handle._shm_key, 0, 1)
    memory.unregister("r7")
    memory.register("more", handle._shm_key, 0, 1)


numbers = st.integers(-3, 70) | st.integers(-(2**70), 2**70)


@settings(max_examples=50, deadline=None)
@given(numbers, numbers, numbers, numbers)
def test_whatever_is_accepted_lies_within_the_object(start: int, size: int, offset: int, count: int) -> None:
    name = f"espalier-{uuid.uuid4().hex}"
    path = Path("/dev/shm") / name
    path.write_bytes(bytes(range(64)))
    memory = SharedMemory(100)
    try:
        memory.register("r", name, start, size)
        found = memory.slot("r", offset, count).read()
    except InvalidRequest:
        assert not (start >= 0 < size <= 64 - start and offset >= 0 <= count <= size - offset)
    else:
        assert found == bytes(range(64))[start + offset : start + offset + count]
        assert offset + count <= size
    finally:
        path.unlink()
