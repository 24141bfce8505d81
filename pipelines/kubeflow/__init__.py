"""The pipeline on Kubeflow: its definition, the settings of a cluster, and running it here without a cluster.

Start at `pipeline.py`. Nothing here is imported before a command needs it: kfp takes seconds to load.
"""

# of the pipeline, on every cluster
NAME = "contrastive-pipeline"
