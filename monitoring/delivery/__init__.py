"""Tells Prometheus what was delivered: what runs where and since when, lead times, changes that failed, CI's last runs.

Everything is read from git's history, the only place that says it, and nothing is stored: a restart knows as much as
before. There are two sources of the same facts: a clone (`--git PATH`), or GitHub's REST API (`--repository
OWNER/NAME`), which also knows the workflows' runs. A deployment is a commit on the branch's own line (first parents)
that gave an overlay another digest; merges, squashes and rebases are alike, and no message is relied upon. It is dated
by that commit, which the merge made. `deploy.release.history` reads the same history for the release tool.

Here it is `python -m monitoring.delivery`. In the cluster it is `python -m delivery` in a plain Python image, from a
ConfigMap: so the standard library alone, and relative imports.
"""
