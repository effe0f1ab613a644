"""What sharing saves on paper."""
