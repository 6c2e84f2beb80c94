output "registry" {
  description = "REGISTRY of the workflows: where images are pushed."
  value       = "${local.registry}/${aws_ecr_repository.images.name}"
}

output "signatures" {
  description = "COSIGN_REPOSITORY of the workflows: where signatures are pushed."
  value       = "${local.registry}/${aws_ecr_repository.signatures.name}"
}

output "role_arns" {
  description = "The roles, by their purpose."
  value       = { for role in keys(local.jobs) : role => "arn:${var.partition}:iam::${var.account_id}:role/${aws_iam_role.this[role].name}" }
}

output "subjects" {
  description = "The jobs that may assume each role, as GitHub names them."
  value       = local.subjects
}

output "trust" {
  description = "The trust policy of each role, as data."
  value       = local.trust
}

output "policies" {
  description = "The permissions of each role, as data."
  value       = local.policies
}

output "keep" {
  description = "The policy of both repositories, as data."
  value       = local.keep
}
