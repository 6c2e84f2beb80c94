"""Tells Prometheus what was delivered: what runs where and since when, lead times, changes that failed, CI's last runs.

Everything is read from git's history, the only place that says it, and nothing is stored: a restart knows as much as
before. The history is a clone's: one on this machine (`--git PATH`), or one that each reading fetches into a temporary
folder (`--repository OWNER/NAME`), which adds the workflows' runs from GitHub's REST API. A deployment is a commit on
the branch's own line (first parents) that gave an overlay another digest; merges, squashes and rebases are alike, and no
message is relied on. It is dated by that commit, which the merge made. `deploy.release.history` reads the same
history for the release tool.

Here it is `python -m monitoring.delivery`. In the cluster it is `python -m delivery` in an image with Python
and git, from a ConfigMap: so the standard library alone, and relative imports.
"""
