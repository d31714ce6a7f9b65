"""Items of a stage on the nodes of a Ray cluster."""
