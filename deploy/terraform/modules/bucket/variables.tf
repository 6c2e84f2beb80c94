variable "name" {
  description = "Name of the bucket, unique in all of AWS."
  type        = string
}

variable "partition" {
  description = "Partition of the account, such as aws."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that encrypts the objects. Without one, S3 encrypts them with its own key."
  type        = string
  default     = null
}

variable "write_once" {
  description = "Whether to refuse writes that could replace an object. Every client must then send If-None-Match: *."
  type        = bool
}

variable "expire_days" {
  description = "Age at which objects are deleted. Without one, they stay."
  type        = number
  default     = null
}
