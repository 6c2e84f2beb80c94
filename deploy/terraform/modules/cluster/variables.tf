variable "name" {
  description = "Name of the cluster, with which names of its roles begin."
  type        = string
}

variable "account_id" {
  description = "The account."
  type        = string
}

variable "partition" {
  description = "Partition of the account, such as aws."
  type        = string
}

variable "region" {
  description = "The region."
  type        = string
}

variable "kubernetes_version" {
  description = "Version of Kubernetes, such as 1.35."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in which control plane and nodes have their addresses."
  type        = list(string)
}

variable "compute" {
  description = "auto for EKS Auto Mode, or node_groups."
  type        = string
}

variable "node_group" {
  description = "The node group, for compute = \"node_groups\"."
  type = object({
    ami_type       = string
    instance_types = list(string)
    min_size       = number
    max_size       = number
    disk_gib       = number
  })
}

variable "api_cidrs" {
  description = "Networks from which the public endpoint of the API is reachable. Empty for a private endpoint only."
  type        = list(string)
}

variable "private_api_cidrs" {
  description = "Networks beside the nodes' from which the private endpoint is reachable, such as that of a VPN."
  type        = list(string)
}

variable "admins" {
  description = "ARNs of the roles and users that may do everything in the cluster."
  type        = list(string)
}

variable "viewers" {
  description = "ARNs of the roles and users that may read everything in the cluster."
  type        = list(string)
}

variable "groups" {
  description = "Roles, by a name for each, and their groups in Kubernetes, which a RoleBinding there gives rights."
  type        = map(object({ arn = string, groups = list(string) }))
  default     = {}
}

variable "log_retention_days" {
  description = "How long the control plane's logs are kept."
  type        = number
}

variable "image_caches" {
  description = "Registries whose images ECR keeps copies of, by the prefix of their repositories."
  type = map(object({
    registry       = string
    credential_arn = optional(string)
  }))
  default = {}
}
