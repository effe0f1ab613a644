"""What all figures have in common, whatever draws them: fonts and quiet colours."""

from __future__ import annotations

FONTS = ("DejaVu Sans", "Verdana", "Arial", "Helvetica")
INK_COLOUR, DIM_COLOUR = "#1f2933", "#5f6b7a"
WORSE = "#cfd4da"
GRID = "#e8ebef"
