# The roles of the pods that use AWS: each model's service, which stores its prediction log. Every model in every
# environment has its own role, with one right under one prefix.

locals {
  names = {
    for server in var.servers : "${server.environment}/${server.model}" => "${var.name}-${server.environment}-${server.model}"
  }

  servers = {
    for server in var.servers : "${server.environment}/${server.model}" => {
      namespace       = "espalier-${server.environment}"
      service_account = "${server.model}-server"
      prefix          = "${server.environment}/${server.model}"
    }
  }

  # IAM takes at most 64 characters, and a model's name alone may have as many.
  roles = {
    for key, name in local.names : key => length(name) <= 64 ? name : "${substr(name, 0, 55)}-${substr(sha256(key), 0, 8)}"
  }

  trust = {
    for key, server in local.servers : key => {
      Version = "2012-10-17"
      Statement = [{
        Effect    = "Allow"
        Principal = { Service = "pods.eks.amazonaws.com" }
        Action    = ["sts:AssumeRole", "sts:TagSession"]
        # An association of the role with other pods is of no use.
        Condition = {
          StringEquals = {
            "aws:RequestTag/eks-cluster-arn"            = var.cluster_arn
            "aws:RequestTag/kubernetes-namespace"       = server.namespace
            "aws:RequestTag/kubernetes-service-account" = server.service_account
          }
        }
      }]
    }
  }

  policies = {
    for key, server in local.servers : key => {
      Version = "2012-10-17"
      Statement = concat(
        [{
          Sid      = "Store"
          Effect   = "Allow"
          Action   = "s3:PutObject"
          Resource = "arn:${var.partition}:s3:::${var.predictions_bucket}/${server.prefix}/*"
        }],
        [for arn in compact([var.kms_key_arn]) : {
          Sid       = "Encrypt"
          Effect    = "Allow"
          Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
          Resource  = arn
          Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
        }],
      )
    }
  }
}

resource "aws_iam_role" "servers" {
  for_each = local.servers

  name               = local.roles[each.key]
  description        = "${each.value.service_account} in ${each.value.namespace}: stores predictions"
  assume_role_policy = jsonencode(local.trust[each.key])
}

resource "aws_iam_role_policy" "servers" {
  for_each = local.servers

  name   = "predictions"
  role   = aws_iam_role.servers[each.key].name
  policy = jsonencode(local.policies[each.key])
}

resource "aws_eks_pod_identity_association" "servers" {
  for_each = local.servers

  cluster_name    = var.cluster_name
  namespace       = each.value.namespace
  service_account = each.value.service_account
  role_arn        = aws_iam_role.servers[each.key].arn

  depends_on = [aws_iam_role_policy.servers]
}
