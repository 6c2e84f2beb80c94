# Every option at once, applied: what a plan cannot know, such as the key in the policies.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/mocked" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/mocked" }
  }
  mock_resource "aws_acm_certificate" {
    defaults = {
      arn = "arn:aws:acm:eu-central-1:111122223333:certificate/mocked"
      domain_validation_options = [{
        domain_name           = "*.espalier.example.com"
        resource_record_name  = "_proof.espalier.example.com."
        resource_record_type  = "CNAME"
        resource_record_value = "_value.acm-validations.aws."
      }]
    }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:mocked" }
  }
}

variables {
  account_id           = "111122223333"
  region               = "eu-central-1"
  github_repository    = "espalier-ml/espalier"
  github_owner_id      = 1234567
  github_repository_id = 7654321
  oidc_provider_arn    = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"
  data_sources         = ["s3://warehouse/exports/churn.parquet"]
  kms                  = true
  predictions_days     = null
  zones                = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  nat_gateways         = "per_zone"
  flow_logs            = true
  compute              = "node_groups"
  api_cidrs            = []
  private_api_cidrs    = ["10.8.0.0/24"]
  admins               = ["arn:aws:iam::111122223333:role/platform"]
  admission            = true
  training             = true
  secrets_prefix       = "espalier"
  hosted_zone_id       = "Z123"
  domains              = ["espalier.example.com", "espalier.staging.example.com"]
  image_caches         = { quay = { registry = "quay.io" } }
  viewers              = ["arn:aws:iam::111122223333:role/developers"]
}

run "everything" {
  command = apply

  assert {
    condition = {
      for role, document in output.policies.roles : role => [
        for statement in document.policy.Statement : statement.Action if try(startswith(statement.Resource, "arn:aws:kms:"), false)
      ]
      if contains(["release", "data", "data-read", "staging/iris"], role)
      } == {
      release        = []
      data           = [["kms:Decrypt", "kms:GenerateDataKey"]]
      data-read      = ["kms:Decrypt"]
      "staging/iris" = [["kms:Decrypt", "kms:GenerateDataKey"]]
    }
    error_message = "Who writes to the buckets may encrypt and decrypt, who reads may decrypt, and others may do neither."
  }

  assert {
    condition     = output.image_caches == { "quay.io" = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/quay" }
    error_message = "The images' copies are elsewhere."
  }

  assert {
    condition     = output.storage_provisioner == "ebs.csi.aws.com" && output.compute == "node_groups"
    error_message = "The outputs are those of Auto Mode."
  }

  assert {
    condition     = output.policies.roles["training"].policy.Statement == output.policies.roles["data"].policy.Statement
    error_message = "Training in the cluster has other rights than the workflow that starts it."
  }
}
