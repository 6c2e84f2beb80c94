# The data that must not be lost: DVC's objects and the prediction log.
#
# Both buckets refuse writes that could replace an object. DVC names objects by their content, and the service gives each
# file of the log a unique name. Object Lock would not help: it protects versions, and an overwrite adds a new one, which
# readers then get.

module "dvc" {
  source = "../bucket"
  count  = var.dvc_bucket == null ? 0 : 1

  name        = var.dvc_bucket
  partition   = var.partition
  kms_key_arn = local.key_arn
  write_once  = true

  # The key is destroyed after the bucket, so that it stays when a bucket that is not empty stays.
  depends_on = [aws_kms_key.this]
}

module "predictions" {
  source = "../bucket"

  name        = var.predictions_bucket
  partition   = var.partition
  kms_key_arn = local.key_arn
  write_once  = true
  expire_days = var.predictions_days

  depends_on = [aws_kms_key.this]
}

locals {
  key_arn = var.kms ? aws_kms_key.this[0].arn : null
}

resource "aws_kms_key" "this" {
  count = var.kms ? 1 : 0

  description             = "Buckets of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    # IAM decides who may use it.
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = "arn:${var.partition}:iam::${var.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })
}

resource "aws_kms_alias" "this" {
  count = var.kms ? 1 : 0

  name          = "alias/${var.name}-data"
  target_key_id = aws_kms_key.this[0].key_id
}
