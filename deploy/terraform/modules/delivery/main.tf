# The registry that `release` fills, and the roles of the workflows.

locals {
  registry = "${var.account_id}.dkr.ecr.${var.region}.amazonaws.com${startswith(var.partition, "aws-cn") ? ".cn" : ""}"

  repositories = {
    images     = var.repository
    signatures = "${var.repository}-signatures"
  }
  repository_arns = {
    for key, name in local.repositories : key => "arn:${var.partition}:ecr:${var.region}:${var.account_id}:repository/${name}"
  }
}

# A tag is a model and a commit, and never moves.
resource "aws_ecr_repository" "images" {
  name                 = local.repositories.images
  image_tag_mutability = "IMMUTABLE"
  force_delete         = false

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
  }
}

# cosign keeps the signatures of an image under the tag sha256-DIGEST.sig, and a second signature moves that tag. Provider
# 5.100 cannot except tags from immutability, so signatures have their own repository (COSIGN_REPOSITORY). A writer of it
# can hide a signature, but cannot forge one.
resource "aws_ecr_repository" "signatures" {
  #checkov:skip=CKV_AWS_51:A second signature of an image moves the tag of the first
  name                 = local.repositories.signatures
  image_tag_mutability = "MUTABLE"
  force_delete         = false

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
  }
}

# There is no lifecycle policy, and to add one is forbidden, because its rules know tags, ages and counts but not git. A rule for
# tagged images eventually removes a digest that production runs or a rollback names. A rule for untagged images removes
# signatures that refer to an image, or an image whose tag is gone. It would save little: images share all layers but one.
resource "aws_ecr_repository_policy" "this" {
  for_each = { images = aws_ecr_repository.images.name, signatures = aws_ecr_repository.signatures.name }

  repository = each.value
  policy     = jsonencode(local.keep)
}

locals {
  keep = {
    Version = "2012-10-17"
    Statement = [{
      Sid       = "NothingIsRemoved"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["ecr:BatchDeleteImage", "ecr:DeleteRepository", "ecr:PutImageTagMutability", "ecr:PutLifecyclePolicy"]
    }]
  }
}
