"""Exports to Prometheus what was delivered: what runs where and since when, lead times, failed changes, CI's last runs.

All but the workflow runs come from git's history, so nothing is stored: a restarted exporter knows as much as before. It
reads a clone on this machine (`--git PATH`), or fetches one into a temporary folder (`--repository OWNER/NAME`). Git has no
record of workflow runs; with `--repository` they come from GitHub's REST API.

A deployment is a commit on the branch's own line (first parents) that changed the digest of a model in an environment.
Merge, squash and rebase give the same result, because commit messages do not matter. Its date is the date of the commit
that the merge made. A model that was never released in an environment, or was removed from it, has no series there.
`deploy.release.deployments` reads the same history for the release tool.

Locally it runs as `python -m monitoring.delivery`. The cluster runs it as `python -m delivery` from a ConfigMap, in an image
with Python and git only: hence the standard library and relative imports.
"""
