# The registry and the workflows' roles: who may assume them, and what each may do, to the letter.

mock_provider "aws" {}

variables {
  name       = "espalier-eu-central-1"
  account_id = "111122223333"
  partition  = "aws"
  region     = "eu-central-1"
  repository = "espalier"
  github = {
    repository    = "espalier-ml/espalier"
    owner_id      = 1234567
    repository_id = 7654321
  }
  dvc = { bucket = "company-dvc", prefix = "dvc" }
}

run "registry" {
  command = plan
  module { source = "../modules/delivery" }

  assert {
    condition     = aws_ecr_repository.images.image_tag_mutability == "IMMUTABLE"
    error_message = "A tag of an image could move."
  }

  assert {
    condition     = aws_ecr_repository.signatures.image_tag_mutability == "MUTABLE" && aws_ecr_repository.signatures.name == "espalier-signatures"
    error_message = "A second signature would be refused."
  }

  assert {
    condition = alltrue([
      for repository in [aws_ecr_repository.images, aws_ecr_repository.signatures] :
      repository.image_scanning_configuration[0].scan_on_push && !repository.force_delete
      && repository.encryption_configuration[0].encryption_type == "KMS"
    ])
    error_message = "Images are not scanned or not encrypted, or a destroy would remove them."
  }

  assert {
    condition = alltrue([
      for policy in aws_ecr_repository_policy.this : jsondecode(policy.policy).Statement == [{
        Sid       = "NothingIsRemoved"
        Effect    = "Deny"
        Principal = "*"
        Action    = ["ecr:BatchDeleteImage", "ecr:DeleteRepository", "ecr:PutImageTagMutability", "ecr:PutLifecyclePolicy"]
      }]
    ]) && length(aws_ecr_repository_policy.this) == 2
    error_message = "An image that production runs could be removed, by hand or by a lifecycle."
  }
}

run "subjects" {
  command = plan
  module { source = "../modules/delivery" }

  assert {
    condition = output.subjects == {
      release = [
        "repo:espalier-ml/espalier:environment:release",
        "repo:espalier-ml@1234567/espalier@7654321:environment:release",
      ]
      data = [
        "repo:espalier-ml/espalier:environment:pipeline",
        "repo:espalier-ml@1234567/espalier@7654321:environment:pipeline",
      ]
      data-read = [
        "repo:espalier-ml/espalier:ref:refs/heads/main",
        "repo:espalier-ml/espalier:pull_request",
        "repo:espalier-ml/espalier:environment:release",
        "repo:espalier-ml@1234567/espalier@7654321:ref:refs/heads/main",
        "repo:espalier-ml@1234567/espalier@7654321:pull_request",
        "repo:espalier-ml@1234567/espalier@7654321:environment:release",
      ]
    }
    error_message = "The roles trust other jobs: ${jsonencode(output.subjects)}"
  }

  assert {
    condition = alltrue([
      for role, trust in { for role, resource in aws_iam_role.this : role => jsondecode(resource.assume_role_policy) } :
      trust.Statement == [{
        Effect    = "Allow"
        Principal = { Federated = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com" }
        Action    = "sts:AssumeRoleWithWebIdentity"
        Condition = {
          StringEquals = {
            "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
            "token.actions.githubusercontent.com:sub" = output.subjects[role]
          }
        }
      }]
    ])
    error_message = "A role trusts more than exact subjects of this repository."
  }

  assert {
    condition = (
      length(aws_iam_openid_connect_provider.github) == 1
      && aws_iam_openid_connect_provider.github[0].url == "https://token.actions.githubusercontent.com"
      && aws_iam_openid_connect_provider.github[0].client_id_list == toset(["sts.amazonaws.com"])
    )
    error_message = "GitHub's identity provider is not created."
  }
}

run "existing_identity_provider" {
  command = plan
  module { source = "../modules/delivery" }
  variables { oidc_provider_arn = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com" }

  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0
    error_message = "An account can have the provider only once."
  }
}

run "permissions" {
  command = plan
  module { source = "../modules/delivery" }

  assert {
    condition = jsondecode(aws_iam_role_policy.this["release"].policy).Statement == [
      { Sid = "LogIn", Effect = "Allow", Action = "ecr:GetAuthorizationToken", Resource = "*" },
      {
        Sid    = "PullAndPush"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:GetDownloadUrlForLayer",
          "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
        ]
        Resource = [
          "arn:aws:ecr:eu-central-1:111122223333:repository/espalier",
          "arn:aws:ecr:eu-central-1:111122223333:repository/espalier-signatures",
        ]
      },
    ]
    error_message = "A release may do something else than push and pull images and signatures."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.this["data"].policy).Statement == [
      {
        Sid       = "List", Effect = "Allow", Action = "s3:ListBucket", Resource = "arn:aws:s3:::company-dvc"
        Condition = { StringLike = { "s3:prefix" = ["dvc", "dvc/*"] } }
      },
      {
        Sid      = "ReadAndWrite", Effect = "Allow", Action = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"]
        Resource = "arn:aws:s3:::company-dvc/dvc/*"
      },
    ]
    error_message = "The pipeline may do something else than read and add DVC's objects."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.this["data-read"].policy).Statement == [
      {
        Sid       = "List", Effect = "Allow", Action = "s3:ListBucket", Resource = "arn:aws:s3:::company-dvc"
        Condition = { StringLike = { "s3:prefix" = ["dvc", "dvc/*"] } }
      },
      { Sid = "Read", Effect = "Allow", Action = "s3:GetObject", Resource = "arn:aws:s3:::company-dvc/dvc/*" },
    ]
    error_message = "A job that reads may do something else."
  }

  assert {
    condition     = { for role, resource in aws_iam_role.this : role => resource.max_session_duration } == { data = 10800, data-read = 3600, release = 3600 }
    error_message = "A session lasts longer than a job that needs it."
  }
}

run "with_a_key_and_a_source" {
  command = plan
  module { source = "../modules/delivery" }
  variables {
    dvc          = { bucket = "company-dvc", prefix = "dvc", kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/k" }
    data_sources = ["s3://warehouse/exports/churn.parquet"]
  }

  assert {
    condition = slice(jsondecode(aws_iam_role_policy.this["data"].policy).Statement, 2, 4) == [
      { Sid = "Sources", Effect = "Allow", Action = "s3:GetObject", Resource = ["arn:aws:s3:::warehouse/exports/churn.parquet"] },
      {
        Sid       = "Encrypt", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = "arn:aws:kms:eu-central-1:111122223333:key/k"
        Condition = { StringEquals = { "kms:ViaService" = "s3.eu-central-1.amazonaws.com" } }
      },
    ]
    error_message = "The pipeline cannot read its source, or may use the key for something else than S3."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.this["data-read"].policy).Statement[2] == {
      Sid       = "Decrypt", Effect = "Allow", Action = "kms:Decrypt", Resource = "arn:aws:kms:eu-central-1:111122223333:key/k"
      Condition = { StringEquals = { "kms:ViaService" = "s3.eu-central-1.amazonaws.com" } }
    }
    error_message = "A job that reads may encrypt."
  }
}
