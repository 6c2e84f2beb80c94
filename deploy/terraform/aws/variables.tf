variable "account_id" {
  description = "The account, twelve digits. A plan with another account's credentials fails."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must have twelve digits, such as \"111122223333\"."
  }
}

variable "region" {
  description = "The region, such as eu-central-1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be a region such as eu-central-1, and no zone."
  }
}

variable "name" {
  description = "The project. It is the name of the registry's repository, and names of everything else begin with it."
  type        = string
  default     = "espalier"

  validation {
    # With purpose, account and region it is the name of a bucket, which has at most 63 characters.
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.name)) && !can(regex("--", var.name))
    error_message = "name must have 2 to 16 characters of a-z, 0-9 and single hyphens, and begin with a letter."
  }
}

variable "tags" {
  description = "Tags of everything, beside Project, Repository and ManagedBy."
  type        = map(string)
  default     = {}
}

# ------------------------------------------------------------------------------------------ workflows and their data

variable "delivery" {
  description = "Whether registry, DVC's bucket and the workflows' roles are here. Only the first region has them."
  type        = bool
  default     = true
}

variable "github_repository" {
  description = "The repository on GitHub, OWNER/NAME."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository must be OWNER/NAME, without an address and without wildcards."
  }
}

variable "github_owner_id" {
  description = "GitHub's number of the owner: gh api repos/OWNER/NAME --jq .owner.id"
  type        = number

  validation {
    condition     = var.github_owner_id > 0 && floor(var.github_owner_id) == var.github_owner_id
    error_message = "github_owner_id must be the number that `gh api repos/OWNER/NAME --jq .owner.id` prints."
  }
}

variable "github_repository_id" {
  description = "GitHub's number of the repository: gh api repos/OWNER/NAME --jq .id"
  type        = number

  validation {
    condition     = var.github_repository_id > 0 && floor(var.github_repository_id) == var.github_repository_id
    error_message = "github_repository_id must be the number that `gh api repos/OWNER/NAME --jq .id` prints."
  }
}

variable "oidc_provider_arn" {
  description = "GitHub's identity provider, if the account has it: an account can have it only once."
  type        = string
  default     = null

  validation {
    condition = var.oidc_provider_arn == null || can(
      regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/token\\.actions\\.githubusercontent\\.com$", var.oidc_provider_arn)
    )
    error_message = "oidc_provider_arn must be the ARN of the provider token.actions.githubusercontent.com."
  }
}

variable "data_sources" {
  description = "Objects (s3://BUCKET/KEY) from which models are trained, if they lie in S3. `retrain` and `reproduce` may read them."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for source in var.data_sources : can(regex("^s3://[a-z0-9][a-z0-9.-]+/[^*?]+$", source))])
    error_message = "data_sources must be objects such as s3://BUCKET/KEY, without wildcards."
  }
}

variable "kms" {
  description = "Whether to encrypt DVC's objects and predictions with a customer managed key instead of S3's key."
  type        = bool
  default     = false
}

variable "prediction_readers" {
  description = "ARNs of the roles and users who may assume the role that reads the prediction log. Features may be personal data."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.prediction_readers : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[^*]+$", arn))])
    error_message = "prediction_readers must be ARNs of roles or users (arn:aws:iam::ACCOUNT:role/NAME), and not of sessions."
  }
}

variable "predictions_days" {
  description = "Age at which predictions are deleted, because features may be personal data. null: never."
  type        = number
  default     = 180

  validation {
    condition     = var.predictions_days == null ? true : var.predictions_days >= 1 && floor(var.predictions_days) == var.predictions_days
    error_message = "predictions_days must be a whole number of days, or null."
  }
}

# ------------------------------------------------------------------------------------------ network

variable "vpc_cidr" {
  description = "Addresses of the VPC, including those of pods. Each zone gets a quarter."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition = can(regex("^[0-9.]+/(1[6-9]|20)$", var.vpc_cidr)) && can(cidrhost(var.vpc_cidr, 0)) ? (
      cidrhost(var.vpc_cidr, 0) == split("/", var.vpc_cidr)[0]
    ) : false
    error_message = "vpc_cidr must be a network with a mask from /16 to /20, such as 10.0.0.0/16."
  }

  validation {
    condition     = can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", var.vpc_cidr))
    error_message = "vpc_cidr must be in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16, which the policies for egress exclude."
  }
}

variable "zones" {
  description = "The three zones. Empty for the first three of the region in which EKS runs."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.zones) == 0 || (length(var.zones) == 3 && length(distinct(var.zones)) == 3)
    error_message = "zones must be three different ones, or empty."
  }

  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^${var.region}[a-z]$", zone))])
    error_message = "zones must be zones of the region, such as ${var.region}a."
  }
}

variable "nat_gateways" {
  description = "one, or per_zone: the way out then survives the loss of a zone, at three times the price."
  type        = string
  default     = "one"

  validation {
    condition     = contains(["one", "per_zone"], var.nat_gateways)
    error_message = "nat_gateways must be one or per_zone."
  }
}

variable "flow_logs" {
  description = "Whether to log the connections of the VPC."
  type        = bool
  default     = false
}

# ------------------------------------------------------------------------------------------ cluster

variable "environments" {
  description = "The environments that this cluster has. Each is a folder in deploy/overlays."
  type        = list(string)
  default     = ["production", "staging"]

  validation {
    condition     = length(var.environments) > 0 && alltrue([for each in var.environments : can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", each))])
    error_message = "environments must be names of folders in deploy/overlays, at least one."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes."
  type        = string
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version must be a version such as 1.35."
  }
}

variable "compute" {
  description = "auto for EKS Auto Mode, or node_groups. Choose once: a cluster does not change from one to the other without a gap."
  type        = string
  default     = "auto"

  validation {
    condition     = contains(["auto", "node_groups"], var.compute)
    error_message = "compute must be auto or node_groups."
  }
}

variable "node_group" {
  description = "The node group, for compute = \"node_groups\"."
  type = object({
    ami_type       = optional(string, "AL2023_x86_64_STANDARD")
    instance_types = optional(list(string), ["m7i.large"])
    min_size       = optional(number, 3)
    max_size       = optional(number, 6)
    disk_gib       = optional(number, 50)
  })
  default = {}

  validation {
    condition     = var.node_group.min_size >= 1 && var.node_group.min_size <= var.node_group.max_size
    error_message = "node_group needs at least one node, and min_size must not exceed max_size."
  }
}

variable "api_cidrs" {
  description = "Networks from which the cluster's API is reachable over the internet. Empty: only from the VPC."
  type        = list(string)

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : can(regex("^[0-9.]+/[0-9]+$", cidr)) && can(cidrnetmask(cidr))])
    error_message = "api_cidrs must be networks with a mask, such as 203.0.113.7/32."
  }

  validation {
    # 0.0.0.0/1 and 128.0.0.0/1 together are the internet, too.
    condition     = alltrue([for cidr in var.api_cidrs : try(tonumber(split("/", cidr)[1]) >= 8, true)])
    error_message = "api_cidrs must not open the cluster's API to the internet: 0.0.0.0/0 and masks below /8 are refused."
  }

  validation {
    # EKS refuses them after some minutes of an apply.
    condition     = !anytrue([for cidr in var.api_cidrs : can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", cidr))])
    error_message = "api_cidrs must be public networks; private ones belong to private_api_cidrs."
  }
}

variable "private_api_cidrs" {
  description = "Private networks beside the VPC's nodes from which the cluster's API is reachable, such as that of a VPN."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for cidr in var.private_api_cidrs : can(regex("^[0-9.]+/[0-9]+$", cidr)) && can(cidrnetmask(cidr)) && try(tonumber(split("/", cidr)[1]) >= 8, false)
    ])
    error_message = "private_api_cidrs must be networks with a mask of at least /8, such as 10.8.0.0/24."
  }
}

variable "admins" {
  description = "ARNs of the roles and users that may do everything in the cluster. Its creator is not among them unless named here."
  type        = list(string)

  validation {
    condition     = length(var.admins) > 0
    error_message = "admins must not be empty: the cluster could not be used."
  }

  validation {
    condition     = alltrue([for arn in var.admins : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[^*]+$", arn))])
    error_message = "admins must be ARNs of roles or users (arn:aws:iam::ACCOUNT:role/NAME), and not of sessions."
  }
}

variable "viewers" {
  description = "ARNs of the roles and users that may read everything in the cluster."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.viewers : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[^*]+$", arn))])
    error_message = "viewers must be ARNs of roles or users (arn:aws:iam::ACCOUNT:role/NAME), and not of sessions."
  }
}

variable "admission" {
  description = "Whether Kyverno, which admits signed images alone, has a role: it may pull images and signatures."
  type        = bool
  default     = false
}

variable "training" {
  description = "Whether training can run in the cluster: the workflows may start it, and it has a role for the DVC remote. Needs `delivery`."
  type        = bool
  default     = false

  validation {
    condition     = !var.training || var.delivery
    error_message = "training needs the roles and the bucket of delivery, which is the first region's."
  }
}

variable "secrets_prefix" {
  description = "What names of the secrets in Secrets Manager begin with, before a slash, that External Secrets may read. null: it has no role."
  type        = string
  default     = null

  validation {
    condition     = var.secrets_prefix == null ? true : can(regex("^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", var.secrets_prefix))
    error_message = "secrets_prefix must be the beginning of names such as espalier, without wildcards and without a slash at its end."
  }
}

variable "hosted_zone_id" {
  description = "The zone of Route 53 in which external-dns may write. null: it has no role."
  type        = string
  default     = null

  validation {
    condition     = var.hosted_zone_id == null ? true : can(regex("^Z[A-Z0-9]+$", var.hosted_zone_id))
    error_message = "hosted_zone_id must be the number of a zone, such as Z0123456789ABC."
  }
}

variable "domains" {
  description = "Domains below which models answer, at MODEL.DOMAIN. Each gets a certificate, proven in the zone hosted_zone_id."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for domain in var.domains : can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", domain))])
    error_message = "domains must be domains such as espalier.example.com, without wildcards."
  }

  validation {
    condition     = length(var.domains) == 0 || var.hosted_zone_id != null
    error_message = "domains need hosted_zone_id, where their certificates are proven."
  }
}

variable "image_caches" {
  description = "Registries whose images ECR keeps copies of, by the prefix of their repositories. Docker Hub asks for credentials: a secret whose name begins with ecr-pullthroughcache/."
  type = map(object({
    registry       = string
    credential_arn = optional(string)
  }))
  default = {}

  validation {
    condition     = alltrue([for prefix, cache in var.image_caches : can(regex("^[a-z0-9][a-z0-9-]{1,29}$", prefix)) && can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", cache.registry))])
    error_message = "image_caches must be hosts such as registry-1.docker.io, by a prefix of 2 to 30 characters of a-z, 0-9 and hyphens."
  }
}

variable "log_retention_days" {
  description = "How long the logs of the control plane and of the VPC are kept."
  type        = number
  default     = 90

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of the numbers that CloudWatch knows, such as 30, 90 or 365."
  }
}
