"""Images per second of SimCLR pretraining: ours, the recipe written plainly in Keras, and lightly, in turn."""
