"""Who calls the steps and when: the command line, and what the pipeline prints when it ends."""
