"""SubTuning (arXiv 2302.06354): fine-tune a few blocks of a backbone per task, keep the rest bit-identical."""
