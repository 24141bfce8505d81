"""What is learned, in Keras 3 and NumPy only: encoders, augmentation, losses, methods, probes, kNN."""
