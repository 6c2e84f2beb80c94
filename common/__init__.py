"""What the commands of `training`, `deploy` and `monitoring` share.

It imports the standard library only, because some steps of workflows run before an environment is made.
"""
