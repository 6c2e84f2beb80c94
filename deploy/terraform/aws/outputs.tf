# `python -m deploy.adopt` reads these: terraform output -json.

output "account_id" {
  description = "The account."
  value       = var.account_id
}

output "region" {
  description = "The region."
  value       = var.region
}

output "cluster_name" {
  description = "The cluster: aws eks update-kubeconfig --name NAME --region REGION"
  value       = module.cluster.name
}

output "cluster_endpoint" {
  description = "Address of the cluster's API."
  value       = module.cluster.endpoint
}

output "compute" {
  description = "auto or node_groups: which component the cluster's platform needs."
  value       = var.compute
}

output "storage_provisioner" {
  description = "What the default StorageClass has to name."
  value       = module.cluster.storage_provisioner
}

output "vpc_id" {
  description = "The VPC."
  value       = module.network.vpc_id
}

output "vpc_cidr" {
  description = "Addresses of the VPC: of load balancers, nodes and pods."
  value       = var.vpc_cidr
}

output "load_balancer_cidr" {
  description = "Addresses of the load balancers alone, from which policies let requests in."
  value       = module.network.public_cidr
}

output "zones" {
  description = "The three zones."
  value       = module.network.zones
}

output "predictions" {
  description = "ESPALIER_PREDICTION_LOG of each server, by ENVIRONMENT/MODEL."
  value       = module.identity.predictions
}

output "image_caches" {
  description = "Where the copies of other registries' images are, by registry."
  value       = { for prefix, cache in var.image_caches : cache.registry => "${var.account_id}.dkr.ecr.${var.region}.amazonaws.com${local.partition == "aws-cn" ? ".cn" : ""}/${prefix}" }
}

output "github_variables" {
  description = "Variables of the repository on GitHub. null where delivery is off."
  value = one([
    for delivery in module.delivery : merge({
      AWS_REGION         = var.region
      AWS_ROLE_DATA      = delivery.role_arns["data"]
      AWS_ROLE_DATA_READ = delivery.role_arns["data-read"]
      AWS_ROLE_RELEASE   = delivery.role_arns["release"]
      COSIGN_REPOSITORY  = delivery.signatures
      REGISTRY           = delivery.registry
      }, var.training ? {
      TRAINING_CLUSTER = module.cluster.name
    } : {})
  ])
}

output "dvc_remote" {
  description = "The DVC remote, for .dvc/config. null where delivery is off."
  value       = var.delivery ? "s3://${module.data.dvc_bucket}/dvc" : null
}

output "policies" {
  description = "Trust and permissions as they are applied, to be read and tested."
  value = {
    buckets      = module.data.policies
    repositories = one(module.delivery[*].keep)
    roles = merge(
      { for role, policy in try(module.delivery[0].policies, {}) : role => { trust = module.delivery[0].trust[role], policy = policy } },
      { for server, policy in module.identity.policies : server => { trust = module.identity.trust[server], policy = policy } },
    )
  }
}
