"""From task models and a plan to what a repository says, checked by running it."""
