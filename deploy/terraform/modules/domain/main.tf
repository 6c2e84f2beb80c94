# Certificates of the hosts, proven by records in a zone of Route 53. Load balancers find them by the host's name.

resource "aws_acm_certificate" "this" {
  for_each = toset(var.domains)

  domain_name       = "*.${each.key}"
  validation_method = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  for_each = toset(var.domains)

  zone_id = var.hosted_zone_id
  name    = one(aws_acm_certificate.this[each.key].domain_validation_options).resource_record_name
  type    = one(aws_acm_certificate.this[each.key].domain_validation_options).resource_record_type
  records = [one(aws_acm_certificate.this[each.key].domain_validation_options).resource_record_value]
  ttl     = 300
  # Two certificates of a domain, such as those of two regions, have the same record.
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  for_each = toset(var.domains)

  certificate_arn         = aws_acm_certificate.this[each.key].arn
  validation_record_fqdns = [aws_route53_record.validation[each.key].fqdn]
}
