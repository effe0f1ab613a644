"""How much of what equal inputs and weights allow the exporter shares, in families of dense networks and of text encoders."""

__all__: list[str] = []
