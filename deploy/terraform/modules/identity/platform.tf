# The roles of controllers. Each is only there where its controller is.

locals {
  arn = "arn:${var.partition}:%s:${var.region}:${var.account_id}:%s"

  all_controllers = {
    argo-rollouts = {
      wanted          = true
      description     = "asks load balancers whether a version gets requests"
      namespace       = "argo-rollouts"
      service_account = "argo-rollouts"
    }
    load-balancer-controller = {
      # Auto Mode has its own.
      wanted          = var.compute == "node_groups"
      description     = "makes load balancers"
      namespace       = "kube-system"
      service_account = "aws-load-balancer-controller"
    }
    kyverno = {
      wanted          = length(var.admission_repositories) > 0
      description     = "looks for signatures of images"
      namespace       = "kyverno"
      service_account = "kyverno-admission-controller"
    }
    external-secrets = {
      wanted          = var.secrets_prefix != null
      description     = "reads secrets"
      namespace       = "external-secrets"
      service_account = "external-secrets"
    }
    external-dns = {
      wanted          = var.hosted_zone_id != null
      description     = "writes records of DNS"
      namespace       = "external-dns"
      service_account = "external-dns"
    }
    training = {
      wanted          = var.training
      description     = "trains: reads and writes the DVC remote"
      namespace       = "training"
      service_account = "trainer"
    }
  }

  controllers = {
    for key, controller in local.all_controllers : key => {
      role            = "${var.name}-${key}"
      description     = controller.description
      namespace       = controller.namespace
      service_account = controller.service_account
      prefix          = null
    } if controller.wanted
  }

  # What belongs to this cluster: the controller tags all that it makes.
  ours      = { "aws:ResourceTag/elbv2.k8s.aws/cluster" = var.name }
  requested = { "aws:RequestTag/elbv2.k8s.aws/cluster" = var.name }

  security_groups = format(local.arn, "ec2", "security-group/*")
  load_balancers  = format(local.arn, "elasticloadbalancing", "loadbalancer/app/*/*")
  target_groups   = format(local.arn, "elasticloadbalancing", "targetgroup/*/*")
  listeners       = [for kind in ["listener", "listener-rule"] : format(local.arn, "elasticloadbalancing", "${kind}/app/*")]

  controller_statements = {
    for key, statements in local.all_statements : key => statements if contains(keys(local.controllers), key)
  }

  all_statements = {
    argo-rollouts = [{
      Sid    = "LookAtTargets"
      Effect = "Allow"
      Action = [
        "elasticloadbalancing:DescribeListeners",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DescribeRules",
        "elasticloadbalancing:DescribeTags",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
      ]
      Resource = "*" # these actions take no resource
    }]

    kyverno = [
      {
        Sid      = "LogIn"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*" # the action takes no resource
      },
      {
        # A further region takes its images from the first.
        Sid      = "Pull"
        Effect   = "Allow"
        Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = [for name in var.admission_repositories : "arn:${var.partition}:ecr:*:${var.account_id}:repository/${name}"]
      },
    ]

    external-secrets = [{
      Sid      = "Read"
      Effect   = "Allow"
      Action   = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
      Resource = format(local.arn, "secretsmanager", "secret:${coalesce(var.secrets_prefix, "none")}/*")
    }]

    training = try([for statement in var.training_statements : statement], [])

    external-dns = [
      {
        Sid      = "Write"
        Effect   = "Allow"
        Action   = ["route53:ChangeResourceRecordSets", "route53:ListResourceRecordSets", "route53:ListTagsForResource"]
        Resource = "arn:${var.partition}:route53:::hostedzone/${coalesce(var.hosted_zone_id, "none")}"
      },
      {
        Sid      = "Find"
        Effect   = "Allow"
        Action   = "route53:ListHostedZones"
        Resource = "*" # the action takes no resource
      },
    ]

    # Load balancers for applications, with targets by address. The chart must have enableShield, enableWaf and enableWafv2
    # off: the controller would ask those services, too.
    load-balancer-controller = [
      {
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "acm:DescribeCertificate",
          "acm:ListCertificates",
          "ec2:DescribeAccountAttributes",
          "ec2:DescribeAddresses",
          "ec2:DescribeAvailabilityZones",
          "ec2:DescribeInstances",
          "ec2:DescribeInternetGateways",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeRouteTables",
          "ec2:DescribeSecurityGroups",
          "ec2:DescribeSubnets",
          "ec2:DescribeTags",
          "ec2:DescribeVpcPeeringConnections",
          "ec2:DescribeVpcs",
          "ec2:GetSecurityGroupsForVpc",
          "elasticloadbalancing:DescribeCapacityReservation",
          "elasticloadbalancing:DescribeListenerAttributes",
          "elasticloadbalancing:DescribeListenerCertificates",
          "elasticloadbalancing:DescribeListeners",
          "elasticloadbalancing:DescribeLoadBalancerAttributes",
          "elasticloadbalancing:DescribeLoadBalancers",
          "elasticloadbalancing:DescribeRules",
          "elasticloadbalancing:DescribeSSLPolicies",
          "elasticloadbalancing:DescribeTags",
          "elasticloadbalancing:DescribeTargetGroupAttributes",
          "elasticloadbalancing:DescribeTargetGroups",
          "elasticloadbalancing:DescribeTargetHealth",
          "elasticloadbalancing:DescribeTrustStores",
        ]
        Resource = "*" # nearly all of these take no resource
      },
      {
        Sid       = "FirstLoadBalancerOfTheAccount"
        Effect    = "Allow"
        Action    = "iam:CreateServiceLinkedRole"
        Resource  = "arn:${var.partition}:iam::${var.account_id}:role/aws-service-role/elasticloadbalancing.amazonaws.com/*"
        Condition = { StringEquals = { "iam:AWSServiceName" = "elasticloadbalancing.amazonaws.com" } }
      },
      {
        Sid      = "CreateSecurityGroupsInTheNetwork"
        Effect   = "Allow"
        Action   = "ec2:CreateSecurityGroup"
        Resource = format(local.arn, "ec2", "vpc/${var.vpc_id}")
      },
      {
        Sid       = "CreateSecurityGroups"
        Effect    = "Allow"
        Action    = "ec2:CreateSecurityGroup"
        Resource  = local.security_groups
        Condition = { StringEquals = local.requested }
      },
      {
        Sid       = "TagNewSecurityGroups"
        Effect    = "Allow"
        Action    = "ec2:CreateTags"
        Resource  = local.security_groups
        Condition = { StringEquals = merge(local.requested, { "ec2:CreateAction" = "CreateSecurityGroup" }) }
      },
      {
        Sid       = "ChangeSecurityGroups"
        Effect    = "Allow"
        Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:DeleteSecurityGroup", "ec2:RevokeSecurityGroupIngress"]
        Resource  = local.security_groups
        Condition = { StringEquals = local.ours }
      },
      {
        # Nodes let the load balancers in. EKS tags their group.
        Sid       = "LetRequestsIn"
        Effect    = "Allow"
        Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]
        Resource  = local.security_groups
        Condition = { StringEquals = { "aws:ResourceTag/kubernetes.io/cluster/${var.name}" = "owned" } }
      },
      {
        Sid       = "Create"
        Effect    = "Allow"
        Action    = ["elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup"]
        Resource  = [local.load_balancers, local.target_groups]
        Condition = { StringEquals = local.requested }
      },
      {
        Sid      = "TagWhatIsNew"
        Effect   = "Allow"
        Action   = "elasticloadbalancing:AddTags"
        Resource = [local.load_balancers, local.target_groups]
        Condition = {
          StringEquals = merge(local.requested, { "elasticloadbalancing:CreateAction" = ["CreateLoadBalancer", "CreateTargetGroup"] })
        }
      },
      {
        Sid    = "Change"
        Effect = "Allow"
        Action = [
          "elasticloadbalancing:AddTags",
          "elasticloadbalancing:DeleteLoadBalancer",
          "elasticloadbalancing:DeleteTargetGroup",
          "elasticloadbalancing:DeregisterTargets",
          "elasticloadbalancing:ModifyLoadBalancerAttributes",
          "elasticloadbalancing:ModifyTargetGroup",
          "elasticloadbalancing:ModifyTargetGroupAttributes",
          "elasticloadbalancing:RegisterTargets",
          "elasticloadbalancing:RemoveTags",
          "elasticloadbalancing:SetIpAddressType",
          "elasticloadbalancing:SetSecurityGroups",
          "elasticloadbalancing:SetSubnets",
        ]
        Resource  = [local.load_balancers, local.target_groups]
        Condition = { StringEquals = local.ours }
      },
      {
        # A listener is created on a load balancer, and a rule on a listener.
        Sid    = "Listen"
        Effect = "Allow"
        Action = [
          "elasticloadbalancing:AddListenerCertificates",
          "elasticloadbalancing:AddTags",
          "elasticloadbalancing:CreateListener",
          "elasticloadbalancing:CreateRule",
          "elasticloadbalancing:DeleteListener",
          "elasticloadbalancing:DeleteRule",
          "elasticloadbalancing:ModifyListener",
          "elasticloadbalancing:ModifyListenerAttributes",
          "elasticloadbalancing:ModifyRule",
          "elasticloadbalancing:RemoveListenerCertificates",
          "elasticloadbalancing:RemoveTags",
          "elasticloadbalancing:SetRulePriorities",
        ]
        Resource = local.listeners
      },
      {
        Sid       = "ListenOnOurs"
        Effect    = "Allow"
        Action    = "elasticloadbalancing:CreateListener"
        Resource  = local.load_balancers
        Condition = { StringEquals = local.ours }
      },
    ]
  }
}
