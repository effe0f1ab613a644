"""What the server says about itself, its settings and its models, as the messages of gRPC; HTTP writes the same messages as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tritonclient.grpc import service_pb2

from serving.catalog import Model
from serving.errors import NotReady, Unsupported
from serving.observe.reported import Reported, reported
from serving.router import Router

_SERVER_NAME = "espalier"
_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",  # the parameters `priority` and `timeout`
    "statistics",
)
# Triton's names, and its values for what is off. Clients can read them; they are fixed while the server runs.
TRACE_SETTINGS: dict[str, list[str]] = {
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["triton"],
}
LOG_SETTINGS: dict[str, str | bool | int] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
# Protobuf classes without type information.
_pb: Any = service_pb2


def server_metadata(*, shared_memory: bool = False) -> Any:
    """Return the ServerMetadataResponse."""
    extensions = (*_EXTENSIONS, *(("system_shared_memory",) if shared_memory else ()))
    return _pb.ServerMetadataResponse(name=_SERVER_NAME, version=_own_version(), extensions=extensions)


def model_metadata(model: Model) -> Any:
    """Return the ModelMetadataResponse of `model`, with all its versions that answer; -1 stands for the rows, and for any size."""
    response = _pb.ModelMetadataResponse(name=model.name, versions=model.versions, platform=model.platform)
    for spec in model.inputs:
        response.inputs.add(name=model.shown(spec.name), datatype=spec.dtype, shape=model.whole_shape(spec))
    for name, output in model.outputs.items():
        response.outputs.add(name=model.shown(name), datatype=output.spec.dtype, shape=model.whole_shape(output.spec))
    return response


def model_config(router: Router, model: Model) -> Any:
    """Return the ModelConfig of `model`: what its config.pbtxt says, and that it answers each request once."""
    config = router.catalog.config(model)
    config.model_transaction_policy.decoupled = False
    return config


def repository_index(router: Router, only_ready: bool = False) -> Any:
    """Return the RepositoryIndexResponse: everything that is there, ready or not, canaries included."""
    response = _pb.RepositoryIndexResponse()
    for model in router.catalog.all_versions():
        state, reason = "READY", ""
        try:
            router.check_model_ready(model)
        except NotReady as error:
            state, reason = "UNAVAILABLE", str(error)
        response.models.add(name=model.name, version=model.version, state=state, reason=reason)
    for name, reason in router.repository.unserved.items():
        response.models.add(name=name, state="UNAVAILABLE", reason=reason)
    if only_ready:
        ready = [model for model in response.models if model.state == "READY"]
        return _pb.RepositoryIndexResponse(models=ready)
    return response


def model_statistics(router: Router, models: Iterable[Model]) -> Any:
    """Return the ModelStatisticsResponse of `models`.

    Counts of durations are requests, those of one model all alike. Of a segment: for whatever task; execution_count says how often
    it ran, and batch_stats by rows per run. Of a task: queue and compute_infer add up the runs of segments that they needed.
    """
    runs = router.segment_statistics()
    response = _pb.ModelStatisticsResponse()
    for model in models:
        message = response.model_stats.add(name=model.name, version=model.version)
        for field in message.inference_stats.DESCRIPTOR.fields:
            getattr(message.inference_stats, field.name).SetInParent()  # perf_analyzer reads them all, zeros included
        _add(message, reported(router.statistics(model), runs.get(model.segment)))
    return response


def refuse_changes(kind: str, changes: Collection[str]) -> None:
    """Raise Unsupported when a client wants to change a setting; a request without changes only reads them."""
    if changes:
        raise Unsupported(f"The {kind} settings are fixed while the server runs; start it with others instead.")


def to_json(message: Any) -> dict[str, Any]:
    """Return a protobuf `message` as Triton writes it in JSON: the proto's field names, defaults included, integers as numbers."""
    return {
        field.name: _field_to_json(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _add(message: Any, done: Reported) -> None:
    message.last_inference, message.inference_count, message.execution_count = done.last_ms, done.rows, done.executions
    stats = message.inference_stats
    _set(stats, done.requests, success=done.total_s, queue=done.queue_s)
    _set(stats, done.requests, compute_input=done.input_s, compute_infer=done.infer_s, compute_output=done.output_s)
    _set(stats, done.failures, fail=done.failed_s)
    for rows, batch in done.batches.items():
        entry = message.batch_stats.add(batch_size=rows)
        _set(
            entry, batch.runs, compute_input=batch.input_seconds, compute_infer=batch.seconds, compute_output=batch.output_seconds
        )


def _set(stats: Any, count: int, **seconds: float) -> None:
    for name, total in seconds.items():
        duration = getattr(stats, name)
        duration.count, duration.ns = count, round(total * 1e9)


def _field_to_json(field: Any, value: Any) -> Any:
    if not field.is_repeated:
        return _value_to_json(field, value)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        kind = field.message_type.fields_by_name["value"]
        return {str(key): _value_to_json(kind, value[key]) for key in sorted(value)}
    return [_value_to_json(field, item) for item in value]


def _value_to_json(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _own_version() -> str:
    try:
        return version("espalier")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
