"""SubTuning of a backbone: its blocks, fitting one subset of them to a task, and the files that come out. Import the modules directly."""
