# An EKS cluster: control plane, key, logs and access. Its nodes are in nodes.tf and node_groups.tf.

locals {
  auto = var.compute == "auto"
  arn  = "arn:${var.partition}:eks:${var.region}:${var.account_id}:cluster/${var.name}"

  # The policies with which EKS does its work. In Auto Mode it also runs nodes, volumes and load balancers.
  cluster_policies = concat(
    ["AmazonEKSClusterPolicy"],
    local.auto ? [
      "AmazonEKSBlockStoragePolicy",
      "AmazonEKSComputePolicy",
      "AmazonEKSLoadBalancingPolicy",
      "AmazonEKSNetworkingPolicy",
    ] : [],
  )
}

resource "aws_eks_cluster" "this" {
  name     = var.name
  role_arn = aws_iam_role.cluster.arn
  version  = var.kubernetes_version

  # The creator gets no rights; access entries name all administrators.
  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = false
  }

  # Add-ons are installed as managed ones instead.
  bootstrap_self_managed_addons = false
  enabled_cluster_log_types     = ["api", "audit", "authenticator", "controllerManager", "scheduler"]

  vpc_config {
    subnet_ids              = var.subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = length(var.api_cidrs) > 0
    public_access_cidrs     = length(var.api_cidrs) > 0 ? var.api_cidrs : null
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = aws_kms_key.secrets.arn
    }
  }

  # An unsupported version is upgraded; extended support costs six times as much.
  upgrade_policy {
    support_type = "STANDARD"
  }

  dynamic "compute_config" {
    for_each = local.auto ? [true] : []
    content {
      enabled       = true
      node_pools    = ["general-purpose", "system"]
      node_role_arn = aws_iam_role.nodes.arn
    }
  }

  dynamic "storage_config" {
    for_each = local.auto ? [true] : []
    content {
      block_storage {
        enabled = true
      }
    }
  }

  dynamic "kubernetes_network_config" {
    for_each = local.auto ? [true] : []
    content {
      elastic_load_balancing {
        enabled = true
      }
    }
  }

  # EKS needs the policies to create the cluster, and also to delete it.
  depends_on = [
    aws_cloudwatch_log_group.control_plane,
    aws_iam_role_policy_attachment.cluster,
    aws_iam_role_policy_attachment.nodes,
  ]
}

resource "aws_iam_role" "cluster" {
  name = "${var.name}-cluster"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "cluster" {
  for_each = toset(local.cluster_policies)

  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${var.partition}:iam::aws:policy/${each.key}"
}

# Otherwise EKS creates it, without a retention.
resource "aws_cloudwatch_log_group" "control_plane" {
  #checkov:skip=CKV_AWS_158:CloudWatch encrypts it with its own key; audit entries hold no content of secrets
  #checkov:skip=CKV_AWS_338:The variable log_retention_days decides
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = var.log_retention_days
}

resource "aws_kms_key" "secrets" {
  description             = "Secrets of the cluster ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    # IAM decides who may use it. EKS gets a grant when the cluster is created.
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = "arn:${var.partition}:iam::${var.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })
}

resource "aws_kms_alias" "secrets" {
  name          = "alias/${var.name}-secrets"
  target_key_id = aws_kms_key.secrets.key_id
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  for_each = toset(var.private_api_cidrs)

  security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  description       = "The cluster's API from ${each.key}"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.key
}

resource "aws_eks_access_entry" "this" {
  for_each = local.access

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.key
}

resource "aws_eks_access_entry" "groups" {
  for_each = var.groups

  cluster_name      = aws_eks_cluster.this.name
  principal_arn     = each.value.arn
  kubernetes_groups = each.value.groups
}

resource "aws_eks_access_policy_association" "this" {
  for_each = local.access

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = aws_eks_access_entry.this[each.key].principal_arn
  policy_arn    = "arn:${var.partition}:eks::aws:cluster-access-policy/${each.value}"

  access_scope {
    type = "cluster"
  }
}

locals {
  access = merge(
    { for arn in var.viewers : arn => "AmazonEKSAdminViewPolicy" },
    { for arn in var.admins : arn => "AmazonEKSClusterAdminPolicy" },
  )
}
