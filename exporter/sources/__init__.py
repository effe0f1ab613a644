"""Files that anyone may have written: read without trusting them, and what a user says about them."""
