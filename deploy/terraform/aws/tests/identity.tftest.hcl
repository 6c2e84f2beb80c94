# The roles of the models' services.

mock_provider "aws" {
  # OpenTofu makes up what a plan cannot know, and the provider refuses a made-up ARN.
  mock_resource "aws_iam_role" { defaults = { arn = "arn:aws:iam::111122223333:role/mocked" } }
}

variables {
  name               = "espalier-eu-central-1"
  partition          = "aws"
  region             = "eu-central-1"
  account_id         = "111122223333"
  vpc_id             = "vpc-1"
  compute            = "auto"
  cluster_name       = "espalier-eu-central-1"
  cluster_arn        = "arn:aws:eks:eu-central-1:111122223333:cluster/espalier-eu-central-1"
  predictions_bucket = "company-predictions"
  kms_key_arn        = null
  servers = [
    { environment = "staging", model = "iris" },
    { environment = "production", model = "iris" },
    { environment = "production", model = "churn-of-customers-with-a-contract-and-a-long-name-60-chars" },
  ]
}

run "one_role_for_each_server" {
  command = plan
  module { source = "../modules/identity" }

  assert {
    condition     = length(aws_iam_role.readers) == 0
    error_message = "Somebody may read predictions without being named."
  }

  assert {
    condition = { for key, association in aws_eks_pod_identity_association.pods : key => "${association.namespace}/${association.service_account}" } == {
      "argo-rollouts"   = "argo-rollouts/argo-rollouts"
      "staging/iris"    = "espalier-staging/iris-server"
      "production/iris" = "espalier-production/iris-server"
      "production/churn-of-customers-with-a-contract-and-a-long-name-60-chars" : "espalier-production/churn-of-customers-with-a-contract-and-a-long-name-60-chars-server"
    }
    error_message = "A server has no role, or a role has no server."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.pods["production/iris"].policy).Statement == [
      { Sid = "Store", Effect = "Allow", Action = "s3:PutObject", Resource = "arn:aws:s3:::company-predictions/production/iris/*" },
    ]
    error_message = "The server may do something else than add files under its own prefix."
  }

  assert {
    condition = jsondecode(aws_iam_role.pods["production/iris"].assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = "arn:aws:eks:eu-central-1:111122223333:cluster/espalier-eu-central-1"
          "aws:RequestTag/kubernetes-namespace"       = "espalier-production"
          "aws:RequestTag/kubernetes-service-account" = "iris-server"
        }
      }
    }]
    error_message = "Other pods could get the role."
  }

  assert {
    condition = (
      alltrue([for role in aws_iam_role.pods : length(role.name) <= 64])
      && length(distinct([for role in aws_iam_role.pods : role.name])) == 4
      && aws_iam_role.pods["staging/iris"].name == "espalier-eu-central-1-staging-iris"
    )
    error_message = "IAM would refuse a name, or two servers share one."
  }
}

run "with_a_key" {
  command = plan
  module { source = "../modules/identity" }
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/k"
    readers     = ["arn:aws:iam::111122223333:role/analysts"]
  }

  assert {
    condition = (
      [for statement in jsondecode(aws_iam_role_policy.readers[0].policy).Statement : statement.Action] == ["s3:ListBucket", "s3:GetObject", "kms:Decrypt"]
      && jsondecode(aws_iam_role.readers[0].assume_role_policy).Statement[0].Principal == { AWS = ["arn:aws:iam::111122223333:role/analysts"] }
    )
    error_message = "Readers may write, or others may read."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.pods["staging/iris"].policy).Statement[1] == {
      Sid       = "Encrypt", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = "arn:aws:kms:eu-central-1:111122223333:key/k"
      Condition = { StringEquals = { "kms:ViaService" = "s3.eu-central-1.amazonaws.com" } }
    }
    error_message = "The server cannot encrypt its predictions."
  }
}

run "controllers" {
  command = plan
  module { source = "../modules/identity" }
  variables {
    compute                = "node_groups"
    secrets_prefix         = "espalier"
    admission_repositories = ["espalier", "espalier-signatures"]
    hosted_zone_id         = "Z123"
    servers                = []
  }

  assert {
    condition = { for key, association in aws_eks_pod_identity_association.pods : key => "${association.namespace}/${association.service_account}" } == {
      argo-rollouts            = "argo-rollouts/argo-rollouts"
      external-dns             = "external-dns/external-dns"
      external-secrets         = "external-secrets/external-secrets"
      kyverno                  = "kyverno/kyverno-admission-controller"
      load-balancer-controller = "kube-system/aws-load-balancer-controller"
    }
    error_message = "A controller has no role, or one that is not there has."
  }

  assert {
    condition = (
      jsondecode(aws_iam_role_policy.pods["external-secrets"].policy).Statement[0].Resource == "arn:aws:secretsmanager:eu-central-1:111122223333:secret:espalier/*"
      && jsondecode(aws_iam_role_policy.pods["external-dns"].policy).Statement[0].Resource == "arn:aws:route53:::hostedzone/Z123"
    )
    error_message = "Secrets or records of others are within reach."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.pods["kyverno"].policy).Statement[1] == {
      Sid    = "Pull"
      Effect = "Allow"
      Action = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Resource = [
        "arn:aws:ecr:*:111122223333:repository/espalier",
        "arn:aws:ecr:*:111122223333:repository/espalier-signatures",
      ]
    }
    error_message = "Kyverno may do something else than pull from the two repositories."
  }

  assert {
    # The interface ELBv2APIClient of Argo Rollouts has these calls, and no other.
    condition = jsondecode(aws_iam_role_policy.pods["argo-rollouts"].policy).Statement[*].Action == [[
      for what in ["Listeners", "LoadBalancers", "Rules", "Tags", "TargetGroups", "TargetHealth"] : "elasticloadbalancing:Describe${what}"
    ]]
    error_message = "Argo Rollouts may do something else than what it does to verify target groups."
  }

  # What changes something names what it may change, and all but listeners and new things carry the cluster's tag.
  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.pods["load-balancer-controller"].policy).Statement : statement.Sid
      if statement.Resource == "*" && anytrue([for action in flatten([statement.Action]) : !can(regex(":(Describe|List|Get)", action))])
    ] == []
    error_message = "The controller may change whatever it likes."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.pods["load-balancer-controller"].policy).Statement : statement.Sid
      if !can(statement.Condition)
    ] == ["Look", "CreateSecurityGroupsInTheNetwork", "Listen"]
    error_message = "A statement has lost its condition."
  }

  assert {
    condition = (
      !can(regex("waf|shield|cognito|iam:List|SetWebAcl", aws_iam_role_policy.pods["load-balancer-controller"].policy))
      # IAM takes 10,240 characters in a role's policies, without blanks.
      && length(aws_iam_role_policy.pods["load-balancer-controller"].policy) < 10240
    )
    error_message = "The policy has what nothing uses, or is too long."
  }
}
