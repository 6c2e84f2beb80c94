terraform {
  # The first with locks in S3.
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }

  # `terraform init -backend-config=backend.hcl` adds bucket, key and region; bootstrap/ prints that file.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ Project = var.name, Repository = var.github_repository, ManagedBy = "terraform" }, var.tags)
  }
}
