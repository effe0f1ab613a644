"""The tables of docs/measurements/tuning.md, from entries alone: each module gives a section in Markdown, and says what it lacks."""

__all__: list[str] = []
