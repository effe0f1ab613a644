"""One request for many tasks: the shared trunk against what one would run without it."""
