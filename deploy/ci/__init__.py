"""What the workflows need beside make: one module for each step that has something to decide.

All but `pipeline`, `reproduce` and `releasable` use nothing but the standard library, so that a job which holds a
token for this repository installs no package.
"""
