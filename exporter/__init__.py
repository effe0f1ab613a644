"""The offline half's heart: finds by content what task models share, and writes it as a model repository."""
