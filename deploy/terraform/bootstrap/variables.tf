variable "account_id" {
  description = "The account, twelve digits. A plan with another account's credentials fails."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must have twelve digits, such as \"111122223333\"."
  }
}

variable "region" {
  description = "The region of the state's bucket."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be a region such as eu-central-1, and no zone."
  }
}

variable "name" {
  description = "The project."
  type        = string
  default     = "espalier"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.name)) && !can(regex("--", var.name))
    error_message = "name must have 2 to 16 characters of a-z, 0-9 and single hyphens, and begin with a letter."
  }
}
