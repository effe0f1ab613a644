"""How long an export takes, phase by phase."""
