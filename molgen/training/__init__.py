"""Training: set-up, loop, optimisers, resuming, fine-tuning, learning curves and model card."""
