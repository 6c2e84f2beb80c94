# The network: zones, ways out, endpoints, and which addresses load balancers have.

mock_provider "aws" {
  # OpenTofu makes up what a plan cannot know, and the provider refuses a made-up ARN.
  mock_resource "aws_iam_role" { defaults = { arn = "arn:aws:iam::111122223333:role/mocked" } }
  mock_resource "aws_cloudwatch_log_group" { defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:mocked" } }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c", "eu-central-1d"] }
  }
}

variables {
  name               = "espalier-eu-central-1"
  account_id         = "111122223333"
  partition          = "aws"
  region             = "eu-central-1"
  cidr               = "10.0.0.0/16"
  nat_gateways       = "one"
  flow_logs          = false
  log_retention_days = 90
}

run "three_zones" {
  command = plan
  module { source = "../modules/network" }

  assert {
    condition     = output.zones == tolist(["eu-central-1a", "eu-central-1b", "eu-central-1c"])
    error_message = "Not the first three zones: ${join(", ", output.zones)}"
  }

  assert {
    condition = [for subnet in aws_subnet.private : "${subnet.availability_zone} ${subnet.cidr_block}"] == [
      "eu-central-1a 10.0.64.0/18", "eu-central-1b 10.0.128.0/18", "eu-central-1c 10.0.192.0/18",
    ]
    error_message = "The private subnets are not a quarter each, in a zone each."
  }

  assert {
    condition = output.public_cidr == "10.0.0.0/20" && [for subnet in aws_subnet.public : "${subnet.availability_zone} ${subnet.cidr_block}"] == [
      "eu-central-1a 10.0.0.0/22", "eu-central-1b 10.0.4.0/22", "eu-central-1c 10.0.8.0/22",
    ]
    error_message = "The public subnets do not lie together in the block that policies name."
  }

  assert {
    condition = alltrue(concat(
      [for subnet in aws_subnet.public : subnet.tags["kubernetes.io/role/elb"] == "1"],
      [for subnet in aws_subnet.private : subnet.tags["kubernetes.io/role/internal-elb"] == "1"],
    ))
    error_message = "Without these tags no load balancer finds its subnets."
  }

  assert {
    condition     = alltrue([for subnet in aws_subnet.public : subnet.map_public_ip_on_launch != true])
    error_message = "Nothing gets a public address by itself."
  }

  assert {
    condition     = keys(aws_nat_gateway.this) == ["eu-central-1a"] && length(aws_route.private) == 3
    error_message = "One NAT gateway is the default, and every zone has its way out."
  }

  assert {
    condition = (
      aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && aws_vpc_endpoint.s3.service_name == "com.amazonaws.eu-central-1.s3"
      && keys(aws_vpc_endpoint.ecr) == ["ecr.api", "ecr.dkr"]
      && alltrue([for endpoint in aws_vpc_endpoint.ecr : endpoint.private_dns_enabled && endpoint.vpc_endpoint_type == "Interface"])
    )
    error_message = "Images and data would pass the NAT gateway."
  }

  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == "10.0.0.0/16"
      && aws_vpc_security_group_ingress_rule.endpoints.from_port == 443
      && aws_vpc_security_group_ingress_rule.endpoints.to_port == 443
    )
    error_message = "The endpoints answer HTTPS from the VPC, and nothing else."
  }

  assert {
    condition     = length(aws_flow_log.this) == 0 && length(aws_iam_role.flow_logs) == 0
    error_message = "Flow logs were not asked for."
  }
}

run "a_way_out_in_each_zone" {
  command = plan
  module { source = "../modules/network" }
  variables {
    nat_gateways = "per_zone"
    flow_logs    = true
  }

  assert {
    condition     = keys(aws_nat_gateway.this) == ["eu-central-1a", "eu-central-1b", "eu-central-1c"] && length(aws_eip.nat) == 3
    error_message = "There is no NAT gateway in each zone."
  }

  assert {
    condition     = length(aws_flow_log.this) == 1 && aws_flow_log.this[0].traffic_type == "ALL" && aws_cloudwatch_log_group.flow_logs[0].retention_in_days == 90
    error_message = "Flow logs were asked for."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.flow_logs[0].policy).Statement == [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/vpc/espalier-eu-central-1/flow-logs:*"
    }]
    error_message = "The role of the flow logs may write into its own group, and nothing else."
  }
}

run "the_smallest_network" {
  command = plan
  module { source = "../modules/network" }
  variables { cidr = "172.16.16.0/20" }

  assert {
    condition     = output.public_cidr == "172.16.16.0/24" && values(local.public)[2] == "172.16.16.128/26" && values(local.private)[2] == "172.16.28.0/22"
    error_message = "A network of /20 is not divided as a larger one."
  }
}

run "chosen_zones" {
  command = plan
  module { source = "../modules/network" }
  variables { zones = ["eu-central-1b", "eu-central-1c", "eu-central-1d"] }

  assert {
    condition     = keys(aws_subnet.private) == ["eu-central-1b", "eu-central-1c", "eu-central-1d"]
    error_message = "The zones that were given are not used."
  }
}
