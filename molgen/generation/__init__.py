"""Molecules out of a trained decoder: drawn, kept or rejected, written, scored."""
