"""Pictures: of a repository, and of what a ledger says. Needs matplotlib to draw."""
