output "predictions" {
  description = "The prefix below which each server stores its predictions, by ENVIRONMENT/MODEL."
  value       = { for key, server in local.servers : key => "s3://${var.predictions_bucket}/${server.prefix}" }
}

output "trust" {
  description = "The trust policy of each server's role, as data."
  value       = local.trust
}

output "policies" {
  description = "The permissions of each server's role, as data."
  value       = local.policies
}
