# The bucket of Terraform's state.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
}

variables {
  account_id = "111122223333"
  region     = "us-east-1"
}

run "state" {
  command = plan

  assert {
    condition     = output.backend == <<-EOT
      bucket = "espalier-terraform-111122223333-us-east-1"
      key    = "espalier/us-east-1.tfstate"
      region = "us-east-1"
    EOT
    error_message = "The root configuration would look for its state elsewhere."
  }

  assert {
    condition     = [for statement in output.policy.Statement : statement.Sid] == ["OnlyTls", "OnlyTls12", "OnlyItsEncryption"]
    error_message = "The state could be read without TLS, or could not be replaced."
  }
}

run "another_account" {
  command = plan
  variables { account_id = "444455556666" }
  expect_failures = [data.aws_caller_identity.current]
}

run "account_of_eleven_digits" {
  command = plan
  variables { account_id = "11112222333" }
  expect_failures = [var.account_id]
}

run "zone_in_place_of_region" {
  command = plan
  variables { region = "us-east-1a" }
  expect_failures = [var.region]
}
