"""Which option helps: what the command line adds to the sentences of the library, which knows no command line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from contract.errors import EspalierError

# By the names of classes, so that no command loads the packages of all. `{...}` are facts of the error.
_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "OutputExists": "Give --force to replace it.",
        "NoCanary": "`espalier deploy --canary` makes one.",
        "DifferentInput": "The options are --image-size and --preprocess.",
        "AmbiguousInput": "Give --input {task}:{name}=INPUT.",
        "DifferentImages": "`espalier tune fit --image-size` tunes for images of another size.",
        "UnlikeRepository": "`espalier tune fit --image-size` tunes for images of another size.",
        "ContradictsTask": "Leave out {options}.",
        "UnknownInput": "Give {options}.",
        "KindNeedsImages": "Give --preprocessing {task}=HOW.",
        "PreprocessingDoesNotFit": "Give it with --preprocessing.",
        "NoTasks": "Give at least one with --task NAME=FILE.",
        "CoupledRows": "Give --coupled for that.",
        "UnknownCutRule": "Give --cuts.",
        "BadSnap": "Give it with --snap.",
        "NeedsExamples": "Give it with --calibration.",
        "NeedlessExamples": "The options are --precision int8 and --calibration.",
        "NeedsPrecision": "Give --precision int8 --calibration DATA, or --precision fp32.",
        "TaskExists": "Give --replace to replace it.",
        "FolderGiven": "All models of a folder are given with --tasks.",
        "BackboneChanged": "Give it with --backbone.",
        "BackboneGiven": "Give it with --backbone.",
        "BackboneIsCode": "Give it with --backbone.",
        "BackboneMoved": "Give it with --backbone.",
        "NeedsBackbone": "Give --backbone, or --task {task}=NETWORK@{file}.",
        "NeedsNamedBackbone": "Give it with --backbone.",
        "NothingBesideCanary": "Leave out --canary.",
        "OtherInputs": "Leave out --canary, or give another name.",
        "DifferentAnswer": "Leave out --canary, or give another name.",
        "UnusableDevice": "Give it with --device.",
        "NotDownloaded": "Give --download to fetch it, or --data-folder.",
        "ServerUnreachable": "Give it with --url.",
        "LoadsRefused": "A server that is started with --admin-token-file FILE takes loads from who gives the same with --token-file.",
        "SegmentTooLarge": "Give more with --memory-limit.",
        "PrecisionUnavailable": "Give it with --precision.",
        "TritonUnreachable": "Give it with --triton-url.",
        "ModelTooLarge": "Leave out --triton-send-files.",
    }
)


def with_hint(error: EspalierError) -> str:
    """Return the sentence of `error`, and after it one that names the option that helps, if there is one."""
    hint = next((_HINTS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _HINTS), None)
    if hint is None:
        return str(error)
    facts = dict(vars(error))
    if "options" in facts:
        facts["options"] = " and ".join(f"--{name.replace('_', '-')}" for name in facts["options"])
    return f"{error} {hint.format_map(facts)}"
