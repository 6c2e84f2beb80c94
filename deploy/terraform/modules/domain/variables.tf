variable "hosted_zone_id" {
  description = "The zone of Route 53 that has the domains."
  type        = string
}

variable "domains" {
  description = "Domains below which models answer, at MODEL.DOMAIN."
  type        = list(string)
}
