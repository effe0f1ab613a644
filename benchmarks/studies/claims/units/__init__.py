"""What each kind of unit does."""
