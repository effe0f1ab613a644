"""What serving one more task would cost, before it is tuned."""
