output "bucket" {
  description = "The bucket of all states."
  value       = module.state.name
}

output "backend" {
  description = "The file aws/backend.hcl: terraform output -raw backend > ../aws/backend.hcl"
  value       = <<-EOT
    bucket = "${module.state.name}"
    key    = "${var.name}/${var.region}.tfstate"
    region = "${var.region}"
  EOT
}

output "policy" {
  description = "The bucket's policy, as data."
  value       = module.state.policy
}
