# An installation in a region: network, cluster and the prediction log's bucket; in the first region also the registry,
# DVC's bucket and the workflows' roles.

locals {
  partition = startswith(var.region, "cn-") ? "aws-cn" : startswith(var.region, "us-gov-") ? "aws-us-gov" : "aws"

  # Roles are global in an account, so their names contain the region.
  name = "${var.name}-${var.region}"

  # Names of buckets are unique in all of AWS.
  bucket = "${var.name}-%s-${var.account_id}-${var.region}"

  # The models that the repository deploys in the environments of this cluster.
  overlays = [
    for path in fileset("${path.module}/../../overlays", "*/*/kustomization.yaml") : split("/", path)
  ]
  servers = [
    for overlay in local.overlays : { environment = overlay[0], model = overlay[1] }
    if contains(var.environments, overlay[0])
  ]
}

# Fails a plan with the credentials of another account.
data "aws_caller_identity" "current" {
  lifecycle {
    postcondition {
      condition     = self.account_id == var.account_id
      error_message = "These credentials are for the account ${self.account_id}, and account_id is ${var.account_id}."
    }
  }
}

module "network" {
  source = "../modules/network"

  name               = local.name
  account_id         = var.account_id
  partition          = local.partition
  region             = var.region
  cidr               = var.vpc_cidr
  zones              = var.zones
  nat_gateways       = var.nat_gateways
  flow_logs          = var.flow_logs
  log_retention_days = var.log_retention_days
}

module "cluster" {
  source = "../modules/cluster"

  name               = local.name
  account_id         = var.account_id
  partition          = local.partition
  region             = var.region
  kubernetes_version = var.kubernetes_version
  subnet_ids         = module.network.private_subnet_ids
  compute            = var.compute
  node_group         = var.node_group
  api_cidrs          = var.api_cidrs
  private_api_cidrs  = var.private_api_cidrs
  admins             = var.admins
  viewers            = var.viewers
  groups             = var.training ? { training = { arn = module.delivery[0].role_arns.data, groups = ["espalier:training"] } } : {}
  log_retention_days = var.log_retention_days
  image_caches       = var.image_caches
}

module "data" {
  source = "../modules/data"

  name               = local.name
  account_id         = var.account_id
  partition          = local.partition
  dvc_bucket         = var.delivery ? format(local.bucket, "dvc") : null
  predictions_bucket = format(local.bucket, "predictions")
  predictions_days   = var.predictions_days
  kms                = var.kms
}

module "delivery" {
  source = "../modules/delivery"
  count  = var.delivery ? 1 : 0

  name       = local.name
  account_id = var.account_id
  partition  = local.partition
  region     = var.region
  repository = var.name
  github = {
    repository    = var.github_repository
    owner_id      = var.github_owner_id
    repository_id = var.github_repository_id
  }
  oidc_provider_arn = var.oidc_provider_arn
  dvc = {
    bucket      = module.data.dvc_bucket
    prefix      = "dvc"
    kms_key_arn = module.data.kms_key_arn
  }
  data_sources = var.data_sources
}

module "domain" {
  source = "../modules/domain"
  count  = length(var.domains) > 0 ? 1 : 0

  hosted_zone_id = var.hosted_zone_id
  domains        = var.domains
}

module "identity" {
  source = "../modules/identity"

  name               = local.name
  partition          = local.partition
  region             = var.region
  cluster_name       = module.cluster.pod_identity
  cluster_arn        = module.cluster.arn
  account_id         = var.account_id
  vpc_id             = module.network.vpc_id
  compute            = var.compute
  secrets_prefix     = var.secrets_prefix
  hosted_zone_id     = var.hosted_zone_id
  servers            = local.servers
  readers            = var.prediction_readers
  predictions_bucket = module.data.predictions_bucket
  kms_key_arn        = module.data.kms_key_arn

  training            = var.training
  training_statements = try(module.delivery[0].policies.data.Statement, [])

  # Those of the module delivery, also where another region has it.
  admission_repositories = var.admission ? [var.name, "${var.name}-signatures"] : []
}
