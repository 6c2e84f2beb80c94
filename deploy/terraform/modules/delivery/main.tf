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

# cosign keeps the signatures of an image in a manifest with the tag sha256-DIGEST.sig, and a second signature moves that
# tag. Immutable tags with an exception for sha256-* would need a newer provider than the oldest that we support, so
# signatures have a repository of their own (COSIGN_REPOSITORY). Whoever can write there can remove a signature, and can
# forge none.
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

# There is no lifecycle policy, and nobody can add one. Its rules know tags, ages and counts, and not git: any rule for
# tagged images removes in the end a digest that production runs or a rollback names, and one for untagged images removes
# the manifests that refer to an image, such as its signatures, or an image that only has such manifests. What would
# be saved is little, because all images share their layers but the model's.
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
