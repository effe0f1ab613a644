"""An engine with a feature cache in front of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from contract.dtypes import Array
from contract.plan import ExecutionPlan
from contract.repository.model import Repository, Segment
from serving.engines.base import Answer, Call, Engine, SegmentStatistics
from serving.errors import FeaturesElsewhere
from serving.features.cache import FeatureCache, FeatureStatistics


def with_feature_cache(engine: Engine, repository: Repository, limit_bytes: int) -> CachedEngine:
    """Return `engine`, which runs `repository`, with that much for features. Raises FeaturesElsewhere where it does not have them."""
    if engine.batches_elsewhere:
        raise FeaturesElsewhere
    return CachedEngine(engine, FeatureCache(repository, limit_bytes))


class CachedEngine:
    """Answers calls that may (`Call.keeps`) with `features`, and all others as `engine` does, whose the segments and the queue are."""

    batches_elsewhere: ClassVar[bool] = False

    def __init__(self, engine: Engine, features: FeatureCache) -> None:
        self._engine = engine
        self._features = features

    def features(self) -> FeatureStatistics:
        """Return what the cache has done. Callable from any thread."""
        return self._features.statistics()

    @property
    def rounding(self) -> float:
        """Return the engine's."""
        return self._engine.rounding

    async def start(self) -> None:
        """Start the engine."""
        await self._engine.start()

    async def aclose(self) -> None:
        """Close the engine, and let go of what is kept."""
        await self._engine.aclose()
        self._features.clear()

    async def load(self, repository: Repository) -> None:
        """Have the engine load, and keep from now on what the tasks of `repository` share."""
        await self._engine.load(repository)
        await self._features.follow(repository)

    async def release(self, segments: Collection[str]) -> None:
        """Let go of these segments, and of what they have made."""
        self._features.drop(segments)
        await self._engine.release(segments)

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call = Call()) -> Answer:  # noqa: B008 (frozen)
        """Run what is left of `plan` for `inputs`."""
        if not call.keeps:
            return await self._engine.infer(plan, inputs, call)
        return await self._features.infer(self._engine.infer, plan, inputs, call)

    def try_segment(self, segment: Segment, inputs: Sequence[Array]) -> Sequence[Array]:
        """Run it on the engine."""
        return self._engine.try_segment(segment, inputs)

    def check_room(self, rows: int, call: Call) -> None:
        """Ask the engine."""
        self._engine.check_room(rows, call)

    def queued_rows(self) -> Mapping[str, int]:
        """Return the engine's."""
        return self._engine.queued_rows()

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return the engine's."""
        return self._engine.statistics()

    async def refresh(self) -> None:
        """Refresh the engine's."""
        await self._engine.refresh()

    def loaded(self) -> Mapping[str, int]:
        """Return the engine's."""
        return self._engine.loaded()

    def computed_by(self) -> Mapping[str, int]:
        """Return the engine's."""
        return self._engine.computed_by()

    def unavailable(self) -> Collection[str]:
        """Return the engine's."""
        return self._engine.unavailable()
