"""From files to batches: one module for each step of a picture's way."""
