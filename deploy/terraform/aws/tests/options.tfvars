# For checkov, which passes over the resources of options that are off.
kms       = true
flow_logs = true
compute   = "node_groups"
