"""All tables in one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from benchmarks.studies.claims.plan import Planned
from benchmarks.studies.claims.tables import active, corruption, greedy, methods, profiles, progress, questions, ranking, transfer
from benchmarks.studies.claims.tables.source import Source

SECTIONS: Mapping[str, Callable[[Source], str]] = MappingProxyType(
    {
        "profiles": profiles.section,
        "methods": methods.section,
        "greedy": greedy.section,
        "questions": questions.section,
        "ranking": ranking.section,
        "corruption": corruption.section,
        "active": active.section,
        "transfer": transfer.section,
    }
)


def make_document(source: Source, plan: Sequence[Planned], cores: int) -> str:
    """Return the document in Markdown."""
    settings = source.settings
    about = (
        f"# Claims on {settings.backbone} at {settings.image_size} pixels\nAll trainings: {settings.epochs} epochs, batches of "
        f"{settings.batch_size}, AdamW along a cosine, one thread; searches at {settings.lr:g}, methods at the best of "
        f"{', '.join(f'{lr:g}' for lr in settings.lrs)} (a head alone ten times that); {settings.folds} "
        "folds, fewer where a class has fewer pictures. "
        "Made by `python -m benchmarks.studies.claims --tables --out FOLDER`.\n"
    )
    return "\n".join([about, *(section(source) for section in SECTIONS.values()), progress.section(source, plan, cores)])
