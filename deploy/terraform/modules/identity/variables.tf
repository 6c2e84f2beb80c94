variable "name" {
  description = "What names of roles begin with."
  type        = string
}

variable "partition" {
  description = "Partition of the account, such as aws."
  type        = string
}

variable "region" {
  description = "The region of the cluster and of the bucket."
  type        = string
}

variable "account_id" {
  description = "The account."
  type        = string
}

variable "cluster_name" {
  description = "The cluster, once associations of pods with roles work in it."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "compute" {
  description = "auto or node_groups."
  type        = string
}

variable "secrets_prefix" {
  description = "What names of the secrets begin with that External Secrets may read, or null."
  type        = string
  default     = null
}

variable "admission_repositories" {
  description = "The repositories of images and signatures that Kyverno may pull from, in any region. Empty: it has no role."
  type        = list(string)
  default     = []
}

variable "hosted_zone_id" {
  description = "The zone of Route 53 in which external-dns may write, or null."
  type        = string
  default     = null
}

variable "training" {
  description = "Whether training runs in the cluster."
  type        = bool
  default     = false
}

variable "training_statements" {
  description = "What it may do then, as statements of a policy."
  type        = any
  default     = []
}

variable "cluster_arn" {
  description = "The cluster's ARN."
  type        = string
}

variable "servers" {
  description = "The models that are deployed in each environment."
  type        = set(object({ environment = string, model = string }))
}

variable "readers" {
  description = "ARNs of the roles and users of people who may read the prediction log."
  type        = list(string)
  default     = []
}

variable "predictions_bucket" {
  description = "The bucket of the prediction log."
  type        = string
}

variable "kms_key_arn" {
  description = "The key that encrypts it, or null."
  type        = string
}
