"""From the values of a plan to an answer."""
