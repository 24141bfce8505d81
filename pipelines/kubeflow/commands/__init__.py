"""The commands of `contrastive kubeflow`: one module each."""
