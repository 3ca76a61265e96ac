"""The loop: optimizer groups, learning rate, steps, checkpoints."""
