output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "zones" {
  description = "The three zones."
  value       = local.zones
}

output "private_subnet_ids" {
  description = "Subnets of the cluster, once they have a way out."
  value       = [for subnet in aws_subnet.private : subnet.id]

  # Nodes that start earlier cannot reach the cluster's API.
  depends_on = [aws_route.private, aws_route_table_association.private, aws_vpc_endpoint.s3]
}

output "public_cidr" {
  description = "The addresses of all load balancers that face the internet."
  value       = local.public_block
}
