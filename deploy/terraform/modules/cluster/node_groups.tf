# What node groups need and Auto Mode brings: nodes, network, DNS, volumes, and identities of pods.

locals {
  # Nodes need these to become ready.
  addons_before = toset(local.auto ? [] : ["eks-pod-identity-agent", "kube-proxy", "vpc-cni"])
  addons_after  = toset(local.auto ? [] : ["aws-ebs-csi-driver", "coredns"])

  addon_configuration = {
    # Without this nothing enforces a NetworkPolicy.
    vpc-cni = jsonencode({ enableNetworkPolicy = "true" })
  }

  addon_roles = {
    for addon, role in {
      aws-ebs-csi-driver = { service_account = "ebs-csi-controller-sa", policy = "service-role/AmazonEBSCSIDriverPolicy" }
      vpc-cni            = { service_account = "aws-node", policy = "AmazonEKS_CNI_Policy" }
    } : addon => role if !local.auto
  }
}

resource "aws_eks_node_group" "this" {
  count = local.auto ? 0 : 1

  cluster_name    = aws_eks_cluster.this.name
  node_group_name = "general"
  node_role_arn   = aws_iam_role.nodes.arn
  subnet_ids      = var.subnet_ids
  ami_type        = var.node_group.ami_type
  instance_types  = var.node_group.instance_types

  scaling_config {
    min_size     = var.node_group.min_size
    desired_size = var.node_group.min_size
    max_size     = var.node_group.max_size
  }

  update_config {
    max_unavailable = 1
  }

  launch_template {
    id      = aws_launch_template.nodes[0].id
    version = aws_launch_template.nodes[0].latest_version
  }

  lifecycle {
    # An autoscaler may own it.
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_eks_addon.before, aws_iam_role_policy_attachment.nodes]
}

resource "aws_launch_template" "nodes" {
  count = local.auto ? 0 : 1

  name        = "${var.name}-nodes"
  description = "Nodes of the cluster ${var.name}"

  # With one hop, pods cannot get the node's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = var.node_group.disk_gib
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-node" }
  }
}

resource "aws_eks_addon" "before" {
  for_each = local.addons_before

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  configuration_values        = lookup(local.addon_configuration, each.key, null)
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  dynamic "pod_identity_association" {
    for_each = [for role in [lookup(local.addon_roles, each.key, null)] : role if role != null]
    content {
      service_account = pod_identity_association.value.service_account
      role_arn        = aws_iam_role.addons[each.key].arn
    }
  }

  depends_on = [aws_iam_role_policy_attachment.addons]
}

resource "aws_eks_addon" "after" {
  for_each = local.addons_after

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  dynamic "pod_identity_association" {
    for_each = [for role in [lookup(local.addon_roles, each.key, null)] : role if role != null]
    content {
      service_account = pod_identity_association.value.service_account
      role_arn        = aws_iam_role.addons[each.key].arn
    }
  }

  depends_on = [aws_eks_node_group.this, aws_iam_role_policy_attachment.addons]
}

resource "aws_iam_role" "addons" {
  for_each = local.addon_roles

  name = "${var.name}-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = local.arn
          "aws:RequestTag/kubernetes-namespace"       = "kube-system"
          "aws:RequestTag/kubernetes-service-account" = each.value.service_account
        }
      }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "addons" {
  for_each = local.addon_roles

  role       = aws_iam_role.addons[each.key].name
  policy_arn = "arn:${var.partition}:iam::aws:policy/${each.value.policy}"
}
