# The cluster in Auto Mode and with node groups: access, encryption, logs, add-ons.

mock_provider "aws" {
  # OpenTofu makes up what a plan cannot know, and the provider refuses a made-up ARN.
  mock_resource "aws_iam_role" { defaults = { arn = "arn:aws:iam::111122223333:role/mocked" } }
  mock_resource "aws_kms_key" { defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/mocked" } }
  mock_resource "aws_cloudwatch_log_group" { defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:mocked" } }
  mock_resource "aws_launch_template" { defaults = { id = "lt-0123456789abcdef0" } }
}

variables {
  name               = "espalier-eu-central-1"
  account_id         = "111122223333"
  partition          = "aws"
  region             = "eu-central-1"
  kubernetes_version = "1.35"
  subnet_ids         = ["subnet-a", "subnet-b", "subnet-c"]
  compute            = "auto"
  node_group = {
    ami_type       = "AL2023_x86_64_STANDARD"
    instance_types = ["m7i.large"]
    min_size       = 3
    max_size       = 6
    disk_gib       = 50
  }
  api_cidrs          = ["203.0.113.0/24"]
  private_api_cidrs  = []
  admins             = ["arn:aws:iam::111122223333:role/platform"]
  viewers            = ["arn:aws:iam::111122223333:role/developers"]
  log_retention_days = 90
}

run "auto_mode" {
  command = plan
  module { source = "../modules/cluster" }

  assert {
    condition = (
      aws_eks_cluster.this.compute_config[0].enabled
      && aws_eks_cluster.this.compute_config[0].node_pools == toset(["general-purpose", "system"])
      && aws_eks_cluster.this.storage_config[0].block_storage[0].enabled
      && aws_eks_cluster.this.kubernetes_network_config[0].elastic_load_balancing[0].enabled
      && !aws_eks_cluster.this.bootstrap_self_managed_addons
    )
    error_message = "Auto Mode is nodes, volumes and load balancers, all three or none."
  }

  assert {
    condition = keys(aws_iam_role_policy_attachment.cluster) == [
      "AmazonEKSBlockStoragePolicy", "AmazonEKSClusterPolicy", "AmazonEKSComputePolicy", "AmazonEKSLoadBalancingPolicy", "AmazonEKSNetworkingPolicy",
    ]
    error_message = "The cluster's role has other policies than Auto Mode needs."
  }

  assert {
    condition     = keys(aws_iam_role_policy_attachment.nodes) == ["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodeMinimalPolicy"]
    error_message = "Nodes may do more than join and pull."
  }

  assert {
    condition     = length(aws_eks_node_group.this) == 0 && length(aws_eks_addon.before) == 0 && length(aws_eks_addon.after) == 0 && length(aws_iam_role.addons) == 0
    error_message = "Auto Mode brings these itself."
  }

  assert {
    condition     = aws_eks_addon.metrics_server.addon_name == "metrics-server"
    error_message = "Without metrics nothing scales."
  }

  assert {
    condition = (
      aws_eks_cluster.this.access_config[0].authentication_mode == "API"
      && !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    )
    error_message = "Access entries alone decide who may use the cluster."
  }

  assert {
    condition = { for arn, entry in aws_eks_access_policy_association.this : arn => reverse(split("/", entry.policy_arn))[0] } == {
      "arn:aws:iam::111122223333:role/platform"   = "AmazonEKSClusterAdminPolicy"
      "arn:aws:iam::111122223333:role/developers" = "AmazonEKSAdminViewPolicy"
    }
    error_message = "Administrators and viewers are not those that were named."
  }

  assert {
    condition = (
      aws_eks_cluster.this.vpc_config[0].endpoint_private_access && aws_eks_cluster.this.vpc_config[0].endpoint_public_access
      && aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["203.0.113.0/24"])
    )
    error_message = "The API is reachable from other networks than those that were named."
  }

  assert {
    condition = (
      aws_eks_cluster.this.encryption_config[0].resources == toset(["secrets"])
      && aws_kms_key.secrets.enable_key_rotation && aws_kms_key.secrets.deletion_window_in_days == 30
    )
    error_message = "Secrets are not encrypted with a key that rotates."
  }

  assert {
    condition = (
      aws_eks_cluster.this.enabled_cluster_log_types == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"])
      && aws_cloudwatch_log_group.control_plane.name == "/aws/eks/espalier-eu-central-1/cluster"
      && aws_cloudwatch_log_group.control_plane.retention_in_days == 90
    )
    error_message = "The control plane's logs are incomplete, or are kept forever."
  }

  assert {
    condition     = aws_eks_cluster.this.upgrade_policy[0].support_type == "STANDARD"
    error_message = "Extended support costs six times as much."
  }
}

run "node_groups" {
  command = plan
  module { source = "../modules/cluster" }
  variables { compute = "node_groups" }

  assert {
    condition = (
      length(aws_eks_cluster.this.compute_config) == 0 && length(aws_eks_cluster.this.storage_config) == 0
      && !aws_eks_cluster.this.bootstrap_self_managed_addons
      && keys(aws_iam_role_policy_attachment.cluster) == ["AmazonEKSClusterPolicy"]
      && keys(aws_iam_role_policy_attachment.nodes) == ["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodePolicy"]
    )
    error_message = "Parts of Auto Mode are left."
  }

  assert {
    condition = (
      keys(aws_eks_addon.before) == ["eks-pod-identity-agent", "kube-proxy", "vpc-cni"]
      && keys(aws_eks_addon.after) == ["aws-ebs-csi-driver", "coredns"]
    )
    error_message = "What Auto Mode would bring is missing: network, DNS, volumes or identities of pods."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.before["vpc-cni"].configuration_values) == { enableNetworkPolicy = "true" }
    error_message = "Nothing would enforce a NetworkPolicy."
  }

  assert {
    condition = { for addon, role in aws_iam_role.addons : addon => jsondecode(role.assume_role_policy).Statement[0].Condition } == {
      for addon, account in { aws-ebs-csi-driver = "ebs-csi-controller-sa", vpc-cni = "aws-node" } : addon => {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = "arn:aws:eks:eu-central-1:111122223333:cluster/espalier-eu-central-1"
          "aws:RequestTag/kubernetes-namespace"       = "kube-system"
          "aws:RequestTag/kubernetes-service-account" = account
        }
      }
    }
    error_message = "Other pods could get the role of an add-on."
  }

  assert {
    condition = (
      aws_launch_template.nodes[0].metadata_options[0].http_tokens == "required"
      && aws_launch_template.nodes[0].metadata_options[0].http_put_response_hop_limit == 1
      && tobool(aws_launch_template.nodes[0].block_device_mappings[0].ebs[0].encrypted)
    )
    error_message = "Pods reach the node's credentials, or disks are not encrypted."
  }

  assert {
    condition     = aws_eks_node_group.this[0].scaling_config[0].min_size == 3 && toset(aws_eks_node_group.this[0].subnet_ids) == toset(["subnet-a", "subnet-b", "subnet-c"])
    error_message = "There is no node in each zone."
  }

  assert {
    condition     = output.storage_provisioner == "ebs.csi.aws.com"
    error_message = "The StorageClass would name the provisioner of Auto Mode."
  }
}

run "private_endpoint_alone" {
  command = plan
  module { source = "../modules/cluster" }
  variables {
    api_cidrs         = []
    private_api_cidrs = ["10.8.0.0/24"]
  }

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "The API is reachable over the internet."
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.api : "${rule.cidr_ipv4} ${rule.from_port}"] == ["10.8.0.0/24 443"]
    error_message = "The VPN does not reach the API."
  }
}

run "image_caches" {
  command = plan
  module { source = "../modules/cluster" }
  variables {
    image_caches = {
      quay       = { registry = "quay.io" }
      docker-hub = { registry = "registry-1.docker.io", credential_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:ecr-pullthroughcache/docker-hub" }
    }
  }

  assert {
    condition = { for prefix, rule in aws_ecr_pull_through_cache_rule.this : prefix => rule.upstream_registry_url } == {
      quay = "quay.io", docker-hub = "registry-1.docker.io"
    }
    error_message = "Images would come from elsewhere."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.image_caches[0].policy).Statement == [{
      Effect   = "Allow"
      Action   = ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
      Resource = ["arn:aws:ecr:eu-central-1:111122223333:repository/docker-hub/*", "arn:aws:ecr:eu-central-1:111122223333:repository/quay/*"]
    }]
    error_message = "Nodes cannot fill the caches, or may make other repositories."
  }
}
