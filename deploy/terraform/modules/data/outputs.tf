output "dvc_bucket" {
  description = "Name of DVC's bucket, or null."
  value       = one(module.dvc[*].name)
}

output "predictions_bucket" {
  description = "Name of the prediction log's bucket."
  value       = module.predictions.name
}

output "kms_key_arn" {
  description = "The key that encrypts both, or null."
  value       = local.key_arn
}

output "policies" {
  description = "The buckets' policies, as data."
  value       = { for name, bucket in { dvc = one(module.dvc[*]), predictions = module.predictions } : name => bucket.policy if bucket != null }
}
