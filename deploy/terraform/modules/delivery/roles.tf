# Three roles, each for certain jobs of one repository, by exact subject. README.md lists the calls of each job.

locals {
  issuer       = "token.actions.githubusercontent.com"
  provider_arn = coalesce(var.oidc_provider_arn, "arn:${var.partition}:iam::${var.account_id}:oidc-provider/${local.issuer}")

  # GitHub writes numbers into the subjects of repositories that were created, renamed or transferred after 15 July 2026.
  owner      = split("/", var.github.repository)[0]
  repository = split("/", var.github.repository)[1]
  prefixes = [
    "repo:${local.owner}/${local.repository}",
    "repo:${local.owner}@${var.github.owner_id}/${local.repository}@${var.github.repository_id}",
  ]

  jobs = {
    release   = ["environment:release"]
    data      = ["environment:pipeline"]
    data-read = ["ref:refs/heads/main", "pull_request", "environment:release"]
  }

  subjects = {
    for role, jobs in local.jobs : role => [for pair in setproduct(local.prefixes, jobs) : join(":", pair)]
  }

  trust = {
    for role, subjects in local.subjects : role => {
      Version = "2012-10-17"
      Statement = [{
        Effect    = "Allow"
        Principal = { Federated = local.provider_arn }
        Action    = "sts:AssumeRoleWithWebIdentity"
        Condition = {
          # StringLike could match repositories of other owners.
          StringEquals = {
            "${local.issuer}:aud" = "sts.amazonaws.com"
            "${local.issuer}:sub" = subjects
          }
        }
      }]
    }
  }

  bucket_arn = "arn:${var.partition}:s3:::${var.dvc.bucket}"

  list = {
    Sid      = "List"
    Effect   = "Allow"
    Action   = "s3:ListBucket"
    Resource = local.bucket_arn
    Condition = {
      StringLike = { "s3:prefix" = [var.dvc.prefix, "${var.dvc.prefix}/*"] }
    }
  }

  # For models whose source is in S3 (`data.source: s3://…`).
  sources = [
    for source in var.data_sources : "arn:${var.partition}:s3:::${trimprefix(source, "s3://")}"
  ]

  statements = {
    release = [
      {
        Sid      = "LogIn"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*" # the action takes no resource
      },
      {
        Sid    = "PullAndPush"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability",
          "ecr:BatchGetImage",
          "ecr:CompleteLayerUpload",
          "ecr:GetDownloadUrlForLayer",
          "ecr:InitiateLayerUpload",
          "ecr:PutImage",
          "ecr:UploadLayerPart",
        ]
        Resource = [local.repository_arns.images, local.repository_arns.signatures]
      },
    ]
    data = concat(
      [
        local.list,
        {
          Sid      = "ReadAndWrite"
          Effect   = "Allow"
          Action   = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"]
          Resource = "${local.bucket_arn}/${var.dvc.prefix}/*"
        },
      ],
      length(local.sources) == 0 ? [] : [{ Sid = "Sources", Effect = "Allow", Action = "s3:GetObject", Resource = local.sources }],
      [for arn in compact([var.dvc.kms_key_arn]) : {
        Sid       = "Encrypt"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = arn
        Condition = local.via_s3
      }],
    )
    data-read = concat(
      [
        local.list,
        {
          Sid      = "Read"
          Effect   = "Allow"
          Action   = "s3:GetObject"
          Resource = "${local.bucket_arn}/${var.dvc.prefix}/*"
        },
      ],
      [for arn in compact([var.dvc.kms_key_arn]) : {
        Sid       = "Decrypt"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = arn
        Condition = local.via_s3
      }],
    )
  }

  via_s3 = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }

  policies = {
    for role, statements in local.statements : role => { Version = "2012-10-17", Statement = statements }
  }
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.oidc_provider_arn == null ? 1 : 0

  url            = "https://${local.issuer}"
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "this" {
  for_each = local.trust

  name               = "${var.name}-${each.key}"
  description        = "GitHub Actions of ${var.github.repository}: ${join(", ", local.jobs[each.key])}"
  assume_role_policy = jsonencode(each.value)
  # Training may take longer than the default hour of a session, and pushes its outputs at the end.
  max_session_duration = each.key == "data" ? 3 * 3600 : 3600

  depends_on = [aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy" "this" {
  for_each = local.policies

  name   = each.key
  role   = aws_iam_role.this[each.key].name
  policy = jsonencode(each.value)
}
