# What must not be lost: DVC's objects and the prediction log.
#
# Both buckets refuse writes that could replace an object: DVC names objects by their content, and the service gives each
# file of the log a name of its own. Object Lock would not do, because it protects versions: an overwrite only adds one,
# which readers then get.

module "dvc" {
  source = "../bucket"
  count  = var.dvc_bucket == null ? 0 : 1

  name        = var.dvc_bucket
  partition   = var.partition
  kms_key_arn = local.key_arn
  write_once  = true

  # A bucket that is not empty survives a destroy. So must its key, which therefore goes after it.
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
    # Whoever may use it is decided by IAM.
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
