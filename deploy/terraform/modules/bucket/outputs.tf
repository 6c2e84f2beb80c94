output "name" {
  description = "Name of the bucket, once its settings are in force."
  value       = aws_s3_bucket.this.bucket

  depends_on = [
    aws_s3_bucket_lifecycle_configuration.this,
    aws_s3_bucket_ownership_controls.this,
    aws_s3_bucket_policy.this,
    aws_s3_bucket_server_side_encryption_configuration.this,
  ]
}

output "policy" {
  description = "The bucket's policy, as data."
  value       = local.policy
}
