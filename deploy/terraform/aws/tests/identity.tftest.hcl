# The roles of the models' services.

mock_provider "aws" {}

variables {
  name               = "espalier-eu-central-1"
  partition          = "aws"
  region             = "eu-central-1"
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
    condition = { for key, association in aws_eks_pod_identity_association.servers : key => "${association.namespace}/${association.service_account}" } == {
      "staging/iris"    = "espalier-staging/iris-server"
      "production/iris" = "espalier-production/iris-server"
      "production/churn-of-customers-with-a-contract-and-a-long-name-60-chars" : "espalier-production/churn-of-customers-with-a-contract-and-a-long-name-60-chars-server"
    }
    error_message = "A server has no role, or a role has no server."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.servers["production/iris"].policy).Statement == [
      { Sid = "Store", Effect = "Allow", Action = "s3:PutObject", Resource = "arn:aws:s3:::company-predictions/production/iris/*" },
    ]
    error_message = "The server may do something else than add files under its own prefix."
  }

  assert {
    condition = jsondecode(aws_iam_role.servers["production/iris"].assume_role_policy).Statement == [{
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
      alltrue([for role in aws_iam_role.servers : length(role.name) <= 64])
      && length(distinct([for role in aws_iam_role.servers : role.name])) == 3
      && aws_iam_role.servers["staging/iris"].name == "espalier-eu-central-1-staging-iris"
    )
    error_message = "IAM would refuse a name, or two servers share one."
  }
}

run "with_a_key" {
  command = plan
  module { source = "../modules/identity" }
  variables { kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/k" }

  assert {
    condition = jsondecode(aws_iam_role_policy.servers["staging/iris"].policy).Statement[1] == {
      Sid       = "Encrypt", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = "arn:aws:kms:eu-central-1:111122223333:key/k"
      Condition = { StringEquals = { "kms:ViaService" = "s3.eu-central-1.amazonaws.com" } }
    }
    error_message = "The server cannot encrypt its predictions."
  }
}
