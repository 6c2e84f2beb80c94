# The roles of the pods that use AWS. Each model's service in each environment has its own, with one right under one prefix,
# to store its prediction log. platform.tf has the roles of controllers.

locals {
  servers = {
    for server in var.servers : "${server.environment}/${server.model}" => {
      role            = "${var.name}-${server.environment}-${server.model}"
      description     = "stores predictions"
      namespace       = "espalier-${server.environment}"
      service_account = "${server.model}-server"
      prefix          = "${server.environment}/${server.model}"
    }
  }

  pods = merge(local.servers, local.controllers)

  bucket_arn = "arn:${var.partition}:s3:::${var.predictions_bucket}"
  via_s3     = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }

  # IAM takes at most 64 characters, and a model's name alone may have as many.
  roles = {
    for key, pod in local.pods : key => length(pod.role) <= 64 ? pod.role : "${substr(pod.role, 0, 55)}-${substr(sha256(key), 0, 8)}"
  }

  trust = {
    for key, pod in local.pods : key => {
      Version = "2012-10-17"
      Statement = [{
        Effect    = "Allow"
        Principal = { Service = "pods.eks.amazonaws.com" }
        Action    = ["sts:AssumeRole", "sts:TagSession"]
        # An association of the role with other pods is of no use.
        Condition = {
          StringEquals = {
            "aws:RequestTag/eks-cluster-arn"            = var.cluster_arn
            "aws:RequestTag/kubernetes-namespace"       = pod.namespace
            "aws:RequestTag/kubernetes-service-account" = pod.service_account
          }
        }
      }]
    }
  }

  statements = merge(
    local.controller_statements,
    {
      for key, server in local.servers : key => concat(
        [{
          Sid      = "Store"
          Effect   = "Allow"
          Action   = "s3:PutObject"
          Resource = "${local.bucket_arn}/${server.prefix}/*"
        }],
        [for arn in compact([var.kms_key_arn]) : {
          Sid       = "Encrypt"
          Effect    = "Allow"
          Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
          Resource  = arn
          Condition = local.via_s3
        }],
      )
    },
  )

  policies = { for key, statements in local.statements : key => { Version = "2012-10-17", Statement = statements } }
}

resource "aws_iam_role" "pods" {
  for_each = local.pods

  name               = local.roles[each.key]
  description        = "${each.value.service_account} in ${each.value.namespace}: ${each.value.description}"
  assume_role_policy = jsonencode(local.trust[each.key])
}

resource "aws_iam_role_policy" "pods" {
  for_each = local.pods

  name   = "pods"
  role   = aws_iam_role.pods[each.key].name
  policy = jsonencode(local.policies[each.key])
}

resource "aws_eks_pod_identity_association" "pods" {
  for_each = local.pods

  cluster_name    = var.cluster_name
  namespace       = each.value.namespace
  service_account = each.value.service_account
  role_arn        = aws_iam_role.pods[each.key].arn

  depends_on = [aws_iam_role_policy.pods]
}

# People who join the log with true labels: python -m monitoring.labels.
resource "aws_iam_role" "readers" {
  count = length(var.readers) > 0 ? 1 : 0

  name        = "${var.name}-predictions-read"
  description = "People: read the prediction log"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { AWS = var.readers }, Action = "sts:AssumeRole" }]
  })
}

resource "aws_iam_role_policy" "readers" {
  count = length(var.readers) > 0 ? 1 : 0

  name = "predictions"
  role = aws_iam_role.readers[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        { Sid = "List", Effect = "Allow", Action = "s3:ListBucket", Resource = local.bucket_arn },
        { Sid = "Read", Effect = "Allow", Action = "s3:GetObject", Resource = "${local.bucket_arn}/*" },
      ],
      [for arn in compact([var.kms_key_arn]) : { Sid = "Decrypt", Effect = "Allow", Action = "kms:Decrypt", Resource = arn, Condition = local.via_s3 }],
    )
  })
}
