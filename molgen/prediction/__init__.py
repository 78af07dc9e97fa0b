"""What a run with targets predicts: the joint model, its neighbours on fingerprints, and intervals."""
