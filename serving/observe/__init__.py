"""What the server tells about itself: metrics, logs, traces. Nothing here decides anything."""
