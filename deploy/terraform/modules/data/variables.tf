variable "name" {
  description = "What names of keys begin with."
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

variable "dvc_bucket" {
  description = "Name of DVC's bucket, or null for none."
  type        = string
}

variable "predictions_bucket" {
  description = "Name of the prediction log's bucket."
  type        = string
}

variable "predictions_days" {
  description = "Age at which predictions are deleted. Null: never."
  type        = number
}

variable "kms" {
  description = "Whether to encrypt the objects with a customer managed key instead of S3's key."
  type        = bool
}
