"""The parameters of a run: composed from `conf/`, checked, and explained where they are wrong."""
