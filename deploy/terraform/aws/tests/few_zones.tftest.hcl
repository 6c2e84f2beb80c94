# A region with two zones, such as us-west-1 for most accounts.

mock_provider "aws" {
  # OpenTofu makes up what a plan cannot know, and the provider refuses a made-up ARN.
  mock_resource "aws_iam_role" { defaults = { arn = "arn:aws:iam::111122223333:role/mocked" } }
  mock_resource "aws_kms_key" { defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/mocked" } }
  mock_resource "aws_cloudwatch_log_group" { defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:mocked" } }
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-west-1a", "us-west-1c"] }
  }
}

run "refused" {
  command = plan
  module { source = "../modules/network" }
  variables {
    name               = "espalier-us-west-1"
    account_id         = "111122223333"
    partition          = "aws"
    region             = "us-west-1"
    cidr               = "10.0.0.0/16"
    nat_gateways       = "one"
    flow_logs          = false
    log_retention_days = 90
  }
  expect_failures = [data.aws_availability_zones.here]
}
