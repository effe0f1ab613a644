"""Which work runs next, together with which other, in how many threads. No model files, no runtime."""
