"""What several steps need: parameters, artifacts, tracking, progress, sources of images."""
