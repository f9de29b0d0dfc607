"""A Vision Transformer from scratch: model, training, attention rollout and its page."""
