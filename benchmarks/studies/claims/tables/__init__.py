"""The tables of docs/guides/choose-blocks.md, from entries alone: each module gives a section in Markdown, and says what it lacks."""

__all__: list[str] = []
