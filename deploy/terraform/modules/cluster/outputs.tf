output "name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "arn" {
  description = "ARN of the cluster."
  value       = local.arn
}

output "endpoint" {
  description = "Address of the cluster's API."
  value       = aws_eks_cluster.this.endpoint
}

output "storage_provisioner" {
  description = "What the StorageClass of encrypted EBS volumes has to name."
  value       = local.auto ? "ebs.csi.eks.amazonaws.com" : "ebs.csi.aws.com"
}

output "pod_identity" {
  description = "The cluster's name, once associations of pods with roles work in it."
  value       = aws_eks_cluster.this.name
  depends_on  = [aws_eks_addon.before]
}
