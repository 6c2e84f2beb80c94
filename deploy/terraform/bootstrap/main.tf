# The bucket of Terraform's state, which must exist before anything else. Its own state is a file in this folder. If the file
# is lost, start a new one with `terraform import module.state.aws_s3_bucket.this BUCKET`.

locals {
  partition = startswith(var.region, "cn-") ? "aws-cn" : startswith(var.region, "us-gov-") ? "aws-us-gov" : "aws"
}

data "aws_caller_identity" "current" {
  lifecycle {
    postcondition {
      condition     = self.account_id == var.account_id
      error_message = "These credentials are for the account ${self.account_id}, and account_id is ${var.account_id}."
    }
  }
}

module "state" {
  source = "../modules/bucket"

  name      = "${var.name}-terraform-${var.account_id}-${var.region}"
  partition = local.partition
  # Every apply replaces the state; versions keep the former ones.
  write_once = false
}
