"""Knowledge from large networks (teachers) into a small one (the student), by their features. Import the modules directly."""
