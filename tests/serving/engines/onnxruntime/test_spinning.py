"""Threads of a run that wait for each other stay awake where each has a core, and never after the run."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.repository import Repository
from serving.engines.embedded import EmbeddedEngine, EngineOptions, session_options
from serving.engines.sessions.runtime import SessionStoreOptions

_SPINNING = "session.intra_op.allow_spinning"


@pytest.mark.parametrize(
    ("instances", "threads", "spin"),
    [(None, 2, True), (None, 3, False), (1, 2, True), (2, 1, True), (2, 2, False), (2, None, True), (None, None, True)],
)
def test_threads_stay_awake_only_where_all_runs_together_have_a_core_for_each(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, instances: int | None, threads: int | None, spin: bool
) -> None:
    monkeypatch.setattr("serving.engines.embedded.available_cores", lambda: 2)
    monkeypatch.setattr("contract.system.whole_cores", lambda: 2)
    for wanted in (True, False):
        options = EngineOptions(SessionStoreOptions(threads, provider="cpu", spin=wanted), instances)
        engine = EmbeddedEngine(repository, options=options)
        asyncio.run(engine.start())
        sessions = [slot.session for slot in engine._store._slots.values()]
        found = {session and session.get_session_options().get_session_config_entry(_SPINNING) for session in sessions}
        asyncio.run(engine.aclose())
        assert found == {str(int(spin and wanted))}


def test_no_thread_stays_awake_after_a_run() -> None:
    session = ort.InferenceSession(layers(), session_options(2), providers=["CPUExecutionProvider"])
    rows = np.ones((64, 256), np.float32)
    for _ in range(20):
        session.run(None, {"x": rows})
        started = time.process_time()
        time.sleep(0.1)
        if (
            time.process_time() - started < 0.01
        ):  # 0.04 s where they stay awake; other threads of this process may work now and then
            return
    pytest.fail("threads of the run stay awake")


def layers() -> bytes:
    """Return twenty layers of 256 x 256, large enough for two threads."""
    weights = numpy_helper.from_array(np.eye(256, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"x{place}" if place else "x", "w"], [f"x{place + 1}"]) for place in range(20)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 256]) for name in ("x", "x20")]
    model = helper.make_model(
        helper.make_graph(nodes, "layers", ends[:1], ends[1:], [weights]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    return bytes(model.SerializeToString())
