"""Runs and files of samples, measured and shown."""
