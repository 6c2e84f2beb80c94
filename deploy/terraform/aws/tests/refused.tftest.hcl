# Values that are refused before anything is planned. Many in one run, because each run takes seconds: it fails unless
# every variable that it lists is refused.

mock_provider "aws" {
  # OpenTofu makes up what a plan cannot know, and the provider refuses a made-up ARN.
  mock_resource "aws_iam_role" { defaults = { arn = "arn:aws:iam::111122223333:role/mocked" } }
  mock_resource "aws_kms_key" { defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/mocked" } }
  mock_resource "aws_cloudwatch_log_group" { defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:mocked" } }
  mock_resource "aws_launch_template" { defaults = { id = "lt-0123456789abcdef0" } }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }
}

variables {
  account_id           = "111122223333"
  region               = "eu-central-1"
  github_repository    = "espalier-ml/espalier"
  github_owner_id      = 1234567
  github_repository_id = 7654321
  admins               = ["arn:aws:iam::111122223333:role/platform"]
  api_cidrs            = ["203.0.113.0/24"]
}

run "another_account" {
  command = plan
  variables { account_id = "444455556666" }
  expect_failures = [data.aws_caller_identity.current]
}

run "wrong_forms" {
  command = plan
  variables {
    account_id           = "11112222333"
    region               = "eu-central-1a"
    name                 = "Espalier"
    github_repository    = "https://github.com/espalier-ml/espalier"
    github_owner_id      = 0
    github_repository_id = 1.5
    oidc_provider_arn    = "arn:aws:iam::111122223333:oidc-provider/gitlab.com"
    data_sources         = ["s3://company/*"]
    predictions_days     = 0
    vpc_cidr             = "10.0.0.0" # without a mask
    nat_gateways         = "two"
    environments         = []
    kubernetes_version   = "1.35.2"
    compute              = "fargate"
    node_group           = { min_size = 7 }
    api_cidrs            = ["203.0.113.7"] # without a mask
    private_api_cidrs    = ["0.0.0.0/0"]
    admins               = [] # the cluster could not be used
    viewers              = ["arn:aws:iam::111122223333:role/*"]
    log_retention_days   = 100
    prediction_readers   = ["*"]
    secrets_prefix       = "espalier/*"
    hosted_zone_id       = "example.com"
    image_caches         = { quay = { registry = "https://quay.io" } }
  }
  expect_failures = [
    var.account_id,
    var.region,
    var.name,
    var.github_repository,
    var.github_owner_id,
    var.github_repository_id,
    var.oidc_provider_arn,
    var.data_sources,
    var.predictions_days,
    var.vpc_cidr,
    var.nat_gateways,
    var.environments,
    var.kubernetes_version,
    var.compute,
    var.node_group,
    var.api_cidrs,
    var.private_api_cidrs,
    var.admins,
    var.viewers,
    var.log_retention_days,
    var.prediction_readers,
    var.secrets_prefix,
    var.hosted_zone_id,
    var.image_caches,
  ]
}

run "almost_right" {
  command = plan
  variables {
    account_id        = "1111-2222-3333"
    name              = "espalier-of-seventeen" # a bucket's name would be too long
    github_repository = "espalier-ml/*"
    vpc_cidr          = "10.0.0.1/16" # an address in a network
    zones             = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
    api_cidrs         = ["0.0.0.0/0"]
    hosted_zone_id    = "Z123"
    domains           = ["*.example.com"]
    admins            = ["arn:aws:sts::111122223333:assumed-role/platform/alice"]
  }
  expect_failures = [
    var.account_id, var.name, var.github_repository, var.vpc_cidr, var.zones, var.api_cidrs, var.admins, var.domains,
  ]
}

run "workarounds" {
  command = plan
  variables {
    name      = "espalier--ml"
    vpc_cidr  = "100.64.0.0/16" # not among the private networks that policies except
    api_cidrs = ["0.0.0.0/1", "128.0.0.0/1"]
    admins    = ["arn:aws:iam::111122223333:root"]
  }
  expect_failures = [var.name, var.vpc_cidr, var.api_cidrs, var.admins]
}

run "too_small" {
  command = plan
  variables {
    vpc_cidr         = "10.0.0.0/24"
    predictions_days = 1.5
    zones            = ["eu-central-1a", "eu-central-1b"]
    domains          = ["espalier.example.com"] # without the zone
    api_cidrs        = ["10.0.0.0/8"]           # no request comes over the internet from there
  }
  expect_failures = [var.api_cidrs, var.vpc_cidr, var.predictions_days, var.zones, var.domains]
}
