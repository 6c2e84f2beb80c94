variable "name" {
  description = "What names of resources begin with."
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

variable "cidr" {
  description = "Addresses of the VPC."
  type        = string
}

variable "zones" {
  description = "The three zones. Empty for the first three of the region in which EKS runs."
  type        = list(string)
  default     = []
}

variable "nat_gateways" {
  description = "one, or per_zone: the way out then survives the loss of a zone, at three times the price."
  type        = string
}

variable "flow_logs" {
  description = "Whether to log the connections of the VPC."
  type        = bool
}

variable "log_retention_days" {
  description = "How long flow logs are kept."
  type        = number
}
