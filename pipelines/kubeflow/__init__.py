"""The pipeline on Kubeflow: its definition, the settings of a cluster, and running it here without a cluster.

Start at `pipeline.py`. Nothing here is imported before a command needs it: kfp takes seconds to load.
"""

# of the pipeline, on every cluster
NAME = "contrastive-pipeline"
# what the cluster tells a container by environment variables: the folder of interrupted trainings (without it the
# step's own default), days after which what none has used there is removed, the address of Kubeflow's page, the id
# of the run
CACHE, KEEP_DAYS, PAGE, RUN = "PIPELINE_CACHE", "PIPELINE_CACHE_DAYS", "PIPELINE_PAGE", "PIPELINE_RUN_ID"
