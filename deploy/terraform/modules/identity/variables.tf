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

variable "cluster_name" {
  description = "The cluster."
  type        = string
}

variable "cluster_arn" {
  description = "The cluster's ARN."
  type        = string
}

variable "servers" {
  description = "The models that are deployed in each environment."
  type        = set(object({ environment = string, model = string }))
}

variable "predictions_bucket" {
  description = "The bucket of the prediction log."
  type        = string
}

variable "kms_key_arn" {
  description = "The key that encrypts it, or null."
  type        = string
}
