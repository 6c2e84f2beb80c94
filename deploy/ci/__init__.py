"""Steps of workflows that decide something; steps that only call make have no module here.

All but `pipeline`, `releasable`, `reproduce` and `smoke` use only the standard library, so that a job with a token for
this repository installs no package.
"""
