# A private bucket: versioned, encrypted, reachable over TLS only. S3 deletes it only while it is empty.

locals {
  # Built from the name, so that a plan shows the whole policy.
  arn = "arn:${var.partition}:s3:::${var.name}"

  tls = [
    {
      Sid       = "OnlyTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [local.arn, "${local.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    },
    {
      Sid       = "OnlyTls12"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [local.arn, "${local.arn}/*"]
      Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
    },
  ]

  # A write must carry `If-None-Match: *`, with which S3 refuses to replace an object. Parts of a multipart upload cannot
  # carry the header; the request that completes the upload and creates the object can.
  write_once = [
    {
      Sid       = "ObjectsAreWrittenOnce"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutObject"
      Resource  = "${local.arn}/*"
      Condition = {
        Null = { "s3:if-none-match" = "true" }
        Bool = { "s3:ObjectCreationOperation" = "true" }
      }
    },
  ]

  algorithm = var.kms_key_arn == null ? "AES256" : "aws:kms"

  # A write that asks for nothing gets the bucket's encryption. One that asks for another could not be read by others.
  encryption = concat(
    [{
      Sid       = "OnlyItsEncryption"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutObject"
      Resource  = "${local.arn}/*"
      Condition = {
        Null            = { "s3:x-amz-server-side-encryption" = "false" }
        StringNotEquals = { "s3:x-amz-server-side-encryption" = local.algorithm }
      }
    }],
    [for arn in compact([var.kms_key_arn]) : {
      Sid       = "OnlyItsKey"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutObject"
      Resource  = "${local.arn}/*"
      Condition = {
        Null            = { "s3:x-amz-server-side-encryption-aws-kms-key-id" = "false" }
        StringNotEquals = { "s3:x-amz-server-side-encryption-aws-kms-key-id" = arn }
      }
    }],
  )

  policy = {
    Version   = "2012-10-17"
    Statement = concat(local.tls, local.encryption, var.write_once ? local.write_once : [])
  }
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:Access logs need another bucket; CloudTrail's data events show the same, and are the account's choice
  #checkov:skip=CKV_AWS_144:What DVC keeps can be computed again, and predictions are worth less than a copy in another region
  #checkov:skip=CKV_AWS_145:The variable kms chooses; S3 encrypts with its own key otherwise
  #checkov:skip=CKV2_AWS_62:Nothing listens to events of the bucket
  bucket        = var.name
  force_destroy = false
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    bucket_key_enabled = var.kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = local.algorithm
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = jsonencode(local.policy)

  # S3 refuses concurrent changes of the two.
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  #checkov:skip=CKV_AWS_300:The first rule ends them; checkov looks at the other rules
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "incomplete-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  dynamic "rule" {
    for_each = var.expire_days == null ? [] : [var.expire_days]
    content {
      id     = "age"
      status = "Enabled"
      filter {}
      expiration {
        days = rule.value
      }
      # Expiry only hides an object of a versioned bucket; this deletes it.
      noncurrent_version_expiration {
        noncurrent_days = 1
      }
    }
  }

  dynamic "rule" {
    for_each = var.expire_days == null ? [] : [var.expire_days]
    content {
      # S3 takes this only in a separate rule.
      id     = "delete-markers"
      status = "Enabled"
      filter {}
      expiration {
        expired_object_delete_marker = true
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}
