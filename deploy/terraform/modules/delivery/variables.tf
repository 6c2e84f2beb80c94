variable "name" {
  description = "What names of roles begin with."
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
  description = "The region of the registry."
  type        = string
}

variable "repository" {
  description = "Name of the registry's repository of images. That of signatures has -signatures after it."
  type        = string
}

variable "github" {
  description = "The repository whose workflows get the roles: OWNER/NAME and GitHub's numbers of both."
  type = object({
    repository    = string
    owner_id      = number
    repository_id = number
  })
}

variable "oidc_provider_arn" {
  description = "GitHub's identity provider, if the account has it."
  type        = string
  default     = null
}

variable "dvc" {
  description = "Where DVC keeps its objects, and the key that encrypts them, if it is not S3's."
  type = object({
    bucket      = string
    prefix      = string
    kms_key_arn = optional(string)
  })
}

variable "data_sources" {
  description = "Objects (s3://BUCKET/KEY) that models read as their source."
  type        = list(string)
  default     = []
}
