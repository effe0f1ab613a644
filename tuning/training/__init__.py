"""Tuning one task: methods, the training loop, and what trainings share."""
