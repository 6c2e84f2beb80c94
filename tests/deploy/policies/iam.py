"""Evaluates AWS policies as IAM does for requests within one account: deny before allow, and no right by default.

It is strict: an element, action, operator or condition key that it does not know fails the test, so a misspelt one cannot
pass for a condition that never holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Document = Mapping[str, Any]

ACTIONS = {
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchDeleteImage",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:DeleteRepository",
    "ecr:DescribeImages",
    "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:PutImageTagMutability",
    "ecr:PutLifecyclePolicy",
    "ecr:UploadLayerPart",
    "kms:Decrypt",
    "kms:GenerateDataKey",
    "s3:AbortMultipartUpload",
    "s3:DeleteBucketPolicy",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetBucketLocation",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
    "s3:PutBucketPolicy",
    "s3:PutObject",
    "sts:AssumeRoleWithWebIdentity",
    "sts:AssumeRole",
    "sts:TagSession",
}
KEYS = {
    "aws:requesttag/eks-cluster-arn",
    "aws:requesttag/kubernetes-namespace",
    "aws:requesttag/kubernetes-service-account",
    "aws:securetransport",
    "kms:viaservice",
    "s3:if-none-match",
    "s3:objectcreationoperation",
    "s3:prefix",
    "s3:tlsversion",
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "token.actions.githubusercontent.com:aud",
    "token.actions.githubusercontent.com:sub",
}
"""Keys of conditions, which IAM compares without regard to case."""
_ELEMENTS = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}


class PolicyError(AssertionError):
    """A policy has something that this does not know."""


@dataclass(frozen=True)
class Request:
    action: str
    resource: str
    context: Mapping[str, str]
    """Values of condition keys; those of keys that a request lacks are absent."""
    principal: tuple[str, str] = ("AWS", "*")
    """Its kind and name, which only policies of resources and of trust look at."""


def refusal(request: Request, identity: Collection[Document], resource: Collection[Document] = ()) -> str:
    """Why a request is refused; empty if it is allowed."""
    documents = [*((each, False) for each in identity), *((each, True) for each in resource)]
    allowed = False
    unknown = {key.lower() for key in request.context} - KEYS
    if unknown or request.action not in ACTIONS:
        raise PolicyError(f"a request with {request.action} {sorted(unknown)}")
    for document, with_principal in documents:
        for statement in _statements(document, with_principal=with_principal):
            if not _matches(statement, request, with_principal=with_principal):
                continue
            if statement["Effect"] == "Deny":
                return f"{statement['Sid']} denies it"
            allowed = True
    return "" if allowed else "nothing allows it"


def _statements(document: Document, *, with_principal: bool) -> Iterator[Mapping[str, Any]]:
    if set(document) != {"Version", "Statement"} or document["Version"] != "2012-10-17":
        raise PolicyError(f"a document with {sorted(document)}")
    for statement in document["Statement"]:
        unknown = set(statement) - _ELEMENTS
        if (
            unknown
            or ("Principal" in statement) is not with_principal
            or statement["Effect"] not in ("Allow", "Deny")
        ):
            raise PolicyError(f"a statement with {sorted(unknown) or sorted(statement)}")
        if statement["Effect"] == "Deny" and "Sid" not in statement:
            raise PolicyError("a denial without a name")
        for action in _list(statement["Action"]):
            if not any(_like(action.lower(), known.lower()) for known in ACTIONS):
                raise PolicyError(f"the action {action}")
        for operator, keys in statement.get("Condition", {}).items():
            if operator not in _OPERATORS:
                raise PolicyError(f"the operator {operator}")
            for key in keys:
                if key.lower() not in KEYS:
                    raise PolicyError(f"the condition key {key}")
        yield statement


def _matches(statement: Mapping[str, Any], request: Request, *, with_principal: bool) -> bool:
    if with_principal and not _is_principal(statement["Principal"], request.principal):
        return False
    if not any(_like(action.lower(), request.action.lower()) for action in _list(statement["Action"])):
        return False
    # Policies of trust and of registries are about what they are attached to, and name no resource.
    if "Resource" in statement and not any(
        _like(each, request.resource) for each in _list(statement["Resource"])
    ):
        return False
    context = {key.lower(): value for key, value in request.context.items()}
    return all(
        _OPERATORS[operator](context.get(key.lower()), [str(each) for each in _list(wanted)])
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _is_principal(principal: Any, asking: tuple[str, str]) -> bool:
    if principal == "*":
        return True
    if not isinstance(principal, Mapping) or set(principal) - {"AWS", "Federated", "Service"}:
        raise PolicyError(f"the principal {principal}")
    kind, name = asking
    return name in _list(principal.get(kind, []))


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _like(pattern: str, text: str) -> bool:
    return fnmatchcase(text, re.sub(r"\[", "[[]", pattern))


# A value that the request lacks makes an operator false, and one that negates true.
_OPERATORS = {
    "StringEquals": lambda found, wanted: found in wanted,
    "StringNotEquals": lambda found, wanted: found not in wanted,
    "StringLike": lambda found, wanted: found is not None and any(_like(each, found) for each in wanted),
    "Bool": lambda found, wanted: found is not None and found.lower() in [each.lower() for each in wanted],
    "Null": lambda found, wanted: str(found is None).lower() in wanted,
    "NumericLessThan": lambda found, wanted: (
        found is not None and any(float(found) < float(each) for each in wanted)
    ),
}
