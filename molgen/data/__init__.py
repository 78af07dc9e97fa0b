"""Data sets: download, reading of files, cleaning, splitting, encoding and batches."""
