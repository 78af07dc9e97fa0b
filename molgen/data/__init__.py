"""Many molecules: read, cleaned, split, encoded, in batches."""
