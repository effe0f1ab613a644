"""The v2 protocol over HTTP, and images in, labels out."""
