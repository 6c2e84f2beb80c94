"""Tells Prometheus what was delivered: what runs where and since when, lead times, changes that failed, CI's last runs.

All but the last comes from git's history, and nothing is stored: a restarted exporter knows as much as before. The history
is that of a clone on this machine (`--git PATH`), or of one that each reading fetches into a temporary folder
(`--repository OWNER/NAME`). Git knows no workflow runs: with `--repository`, GitHub's REST API gives the last ones.

A deployment is a commit on the branch's own line (first parents) that gave an overlay another digest; merges, squashes
and rebases are alike, and no message is relied on. Its date is the commit's, which the merge made.
`deploy.release.history` reads the same history for the release tool.

Here it is `python -m monitoring.delivery`. In the cluster it is `python -m delivery` in an image with Python
and git, from a ConfigMap: so the standard library alone, and relative imports.
"""
