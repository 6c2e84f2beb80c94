# The root configuration: what an installation consists of, and that everything fits together.

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
  vpc_cidr             = "10.0.0.0/16"
}

run "first_region" {
  command = plan

  assert {
    condition = output.github_variables == {
      AWS_REGION         = "eu-central-1"
      AWS_ROLE_DATA      = "arn:aws:iam::111122223333:role/espalier-eu-central-1-data"
      AWS_ROLE_DATA_READ = "arn:aws:iam::111122223333:role/espalier-eu-central-1-data-read"
      AWS_ROLE_RELEASE   = "arn:aws:iam::111122223333:role/espalier-eu-central-1-release"
      COSIGN_REPOSITORY  = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/espalier-signatures"
      REGISTRY           = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/espalier"
    }
    error_message = "The variables for GitHub are not those that the workflows read: ${jsonencode(output.github_variables)}"
  }

  assert {
    condition     = output.dvc_remote == "s3://espalier-dvc-111122223333-eu-central-1/dvc"
    error_message = "The DVC remote is not the bucket."
  }

  assert {
    condition     = output.cluster_name == "espalier-eu-central-1" && output.vpc_cidr == "10.0.0.0/16" && output.load_balancer_cidr == "10.0.0.0/20"
    error_message = "The cluster's name or its networks are wrong."
  }

  assert {
    condition     = output.compute == "auto" && output.storage_provisioner == "ebs.csi.eks.amazonaws.com"
    error_message = "Auto Mode is the default, with its own provisioner of volumes."
  }

  assert {
    condition = alltrue([
      for environment in ["staging", "production"] :
      output.predictions["${environment}/iris"] == "s3://espalier-predictions-111122223333-eu-central-1/${environment}/iris"
    ])
    error_message = "The model iris has no place for its predictions in each environment."
  }

  assert {
    condition     = length(setsubtract(["release", "data", "data-read", "staging/iris", "production/iris"], keys(output.policies.roles))) == 0
    error_message = "A role is missing among the policies."
  }

  assert {
    condition     = join(" ", keys(output.policies.buckets)) == "dvc predictions"
    error_message = "There are two buckets."
  }

  assert {
    condition = alltrue([
      for action in flatten([for role in output.policies.roles : [for statement in role.policy.Statement : statement.Action]]) :
      !can(regex("\\*|Delete|DescribeImages", action))
    ])
    error_message = "A role may delete, may do everything, or may do what nothing does."
  }
}

run "us_east_1" {
  command = plan

  variables {
    region = "us-east-1"
    zones  = ["us-east-1a", "us-east-1b", "us-east-1d"]
  }

  assert {
    condition     = output.zones == tolist(["us-east-1a", "us-east-1b", "us-east-1d"])
    error_message = "The zones that were given are not used."
  }

  assert {
    condition     = output.github_variables.REGISTRY == "111122223333.dkr.ecr.us-east-1.amazonaws.com/espalier"
    error_message = "The registry is not in us-east-1."
  }
}

run "a_further_region" {
  command = plan

  variables {
    region       = "eu-west-1"
    zones        = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
    delivery     = false
    environments = ["production"]
  }

  assert {
    condition     = output.github_variables == null && join(" ", keys(output.policies.buckets)) == "predictions"
    error_message = "Only the first region has a registry, workflows' roles and DVC's bucket."
  }

  assert {
    condition     = alltrue([for server in keys(output.predictions) : startswith(server, "production/")]) && contains(keys(output.predictions), "production/iris")
    error_message = "The cluster has identities of an environment that is not its own, or lacks those of its own."
  }
}

run "another_partition" {
  command = plan

  variables {
    region = "us-gov-west-1"
    zones  = ["us-gov-west-1a", "us-gov-west-1b", "us-gov-west-1c"]
  }

  assert {
    condition     = length(regexall("arn:aws:", jsonencode(output.policies))) == 0
    error_message = "A policy names resources of another partition."
  }
}
