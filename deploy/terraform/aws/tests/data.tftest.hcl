# The buckets: private, versioned, encrypted, written once, and kept.

mock_provider "aws" {}

variables {
  name               = "espalier-eu-central-1"
  account_id         = "111122223333"
  partition          = "aws"
  dvc_bucket         = "company-dvc"
  predictions_bucket = "company-predictions"
  predictions_days   = 180
  kms                = false
  write_once         = true
}

run "policies" {
  command = plan
  module { source = "../modules/data" }

  assert {
    condition = alltrue([
      for name, policy in output.policies : policy.Statement == [
        {
          Sid       = "OnlyTls", Effect = "Deny", Principal = "*", Action = "s3:*"
          Resource  = ["arn:aws:s3:::company-${name}", "arn:aws:s3:::company-${name}/*"]
          Condition = { Bool = { "aws:SecureTransport" = "false" } }
        },
        {
          Sid       = "OnlyTls12", Effect = "Deny", Principal = "*", Action = "s3:*"
          Resource  = ["arn:aws:s3:::company-${name}", "arn:aws:s3:::company-${name}/*"]
          Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
        },
        {
          Sid      = "OnlyItsEncryption", Effect = "Deny", Principal = "*", Action = "s3:PutObject"
          Resource = "arn:aws:s3:::company-${name}/*"
          Condition = {
            Null            = { "s3:x-amz-server-side-encryption" = "false" }
            StringNotEquals = { "s3:x-amz-server-side-encryption" = "AES256" }
          }
        },
        {
          Sid       = "ObjectsAreWrittenOnce", Effect = "Deny", Principal = "*", Action = "s3:PutObject"
          Resource  = "arn:aws:s3:::company-${name}/*"
          Condition = { Null = { "s3:if-none-match" = "true" }, Bool = { "s3:ObjectCreationOperation" = "true" } }
        },
      ]
    ]) && length(output.policies) == 2
    error_message = "A bucket lets an object be replaced, or be read without TLS."
  }

  assert {
    condition     = output.kms_key_arn == null && length(aws_kms_key.this) == 0
    error_message = "A key was not asked for."
  }
}

run "with_a_key" {
  command = plan
  module { source = "../modules/data" }
  variables { kms = true }

  assert {
    condition     = aws_kms_key.this[0].enable_key_rotation && aws_kms_key.this[0].deletion_window_in_days == 30
    error_message = "The key does not rotate, or goes before somebody notices."
  }
}

run "a_bucket" {
  command = plan
  module { source = "../modules/bucket" }
  variables { name = "company-dvc" }

  assert {
    condition     = !aws_s3_bucket.this.force_destroy
    error_message = "A destroy would delete the data."
  }

  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "The bucket keeps no versions."
  }

  assert {
    condition = (
      aws_s3_bucket_public_access_block.this.block_public_acls && aws_s3_bucket_public_access_block.this.block_public_policy
      && aws_s3_bucket_public_access_block.this.ignore_public_acls && aws_s3_bucket_public_access_block.this.restrict_public_buckets
      && aws_s3_bucket_ownership_controls.this.rule[0].object_ownership == "BucketOwnerEnforced"
    )
    error_message = "The bucket could become public."
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "The bucket is not encrypted."
  }

  assert {
    condition     = [for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.id] == ["incomplete-uploads"]
    error_message = "Something else than incomplete uploads is deleted."
  }
}

run "a_bucket_with_a_key_and_an_age" {
  command = plan
  module { source = "../modules/bucket" }
  variables {
    name        = "company-predictions"
    kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/k"
    expire_days = 180
  }

  assert {
    condition = (
      one(aws_s3_bucket_server_side_encryption_configuration.this.rule).bucket_key_enabled
      && one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
      && one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).kms_master_key_id == "arn:aws:kms:eu-central-1:111122223333:key/k"
    )
    error_message = "The bucket is not encrypted with the key that was given."
  }

  assert {
    condition = (
      aws_s3_bucket_lifecycle_configuration.this.rule[1].expiration[0].days == 180
      && aws_s3_bucket_lifecycle_configuration.this.rule[1].noncurrent_version_expiration[0].noncurrent_days == 1
    )
    error_message = "Predictions are kept beyond their age, hidden or not."
  }
}
