# A region with two zones, such as us-west-1 for most accounts.

mock_provider "aws" {
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
