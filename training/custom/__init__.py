"""Code of a model: the functions that its params.yaml names, and the files and packages that they come from."""
