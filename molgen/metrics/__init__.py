"""Lists of molecules in, figures out. Metrics never see a model."""
