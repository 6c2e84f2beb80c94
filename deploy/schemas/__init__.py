"""JSON schemas of compose.yaml, railway.json and the custom resources that are used here, named GROUP_VERSION_KIND.json.

`python -m deploy.schemas` makes them again; deploy/manifests/schema.py reads them.
"""
