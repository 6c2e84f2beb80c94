# For checkov, which passes over the resources of options that are off.
kms       = true
flow_logs = true
compute   = "node_groups"

admission      = true
training       = true
secrets_prefix = "espalier"
hosted_zone_id = "Z123"
domains        = ["espalier.example.com"]
image_caches   = { quay = { registry = "quay.io" } }
