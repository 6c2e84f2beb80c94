"""JSON schemas of the custom resources that are used here: one file each, named GROUP_VERSION_KIND.json.

`python -m deploy.schemas` makes them again; deploy/manifests/schema.py reads them.
"""
