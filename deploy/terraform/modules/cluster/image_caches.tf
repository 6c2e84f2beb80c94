# Copies of other registries' images, so that a pod starts while they are unreachable or refuse anonymous users.

resource "aws_ecr_pull_through_cache_rule" "this" {
  for_each = var.image_caches

  ecr_repository_prefix = each.key
  upstream_registry_url = each.value.registry
  credential_arn        = each.value.credential_arn
}

# ECR makes a repository at the first pull of an image, with the rights of the node that pulls.
resource "aws_iam_role_policy" "image_caches" {
  count = length(var.image_caches) > 0 ? 1 : 0

  name = "image-caches"
  role = aws_iam_role.nodes.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
      Resource = [for prefix in keys(var.image_caches) : "arn:${var.partition}:ecr:${var.region}:${var.account_id}:repository/${prefix}/*"]
    }]
  })
}
