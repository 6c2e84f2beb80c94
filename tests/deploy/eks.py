"""Plays EKS: moto's forgets how a cluster computes, stores and lets people in, and knows neither access nor add-ons.

Every object is kept as it was sent, with what EKS adds to it.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Path = tuple[str, ...]
"""Such as ("clusters", NAME, "addons", ADDON)."""
KINDS = {
    # The key of one in an answer, that of many, and the field that names it in a path.
    "access-entries": ("accessEntry", "accessEntries", "principalArn"),
    "access-policies": ("associatedAccessPolicy", "associatedAccessPolicies", "policyArn"),
    "addons": ("addon", "addons", "addonName"),
    "clusters": ("cluster", "clusters", "name"),
    "pod-identity-associations": ("association", "associations", "associationId"),
}


class Eks:
    """EKS of a region, in memory."""

    def __init__(self, account: str, region: str) -> None:
        self.objects: dict[Path, Json] = {}
        self._prefix = f"arn:aws:eks:{region}:{account}"
        self._made = 0

    def answer(self, method: str, path: Path, body: Json) -> tuple[int, Json]:
        """The status and the body of an answer."""
        if path[0] == "tags":
            tagged = [each for each in self.objects.values() if path[1] in each.values()]
            return 200, {"tags": tagged[0].get("tags", {})}
        collection = len(path) % 2 == 1
        one, many, name = KINDS[path[-1] if collection else path[-2]]
        if method == "POST":
            made = self._make(path, name, body)
            self.objects[*path, made[name]] = made
            return 200, {one: made}
        if collection:
            return 200, {many: [each for at, each in self.objects.items() if at[:-1] == path]}
        if path not in self.objects:
            return 404, {"message": f"No {one} found: {path[-1]}"}
        return 200, {one: self.objects.pop(path) if method == "DELETE" else self.objects[path]}

    def _make(self, path: Path, name: str, body: Json) -> Json:
        self._made += 1
        times = {"createdAt": 1.8e9, "modifiedAt": 1.8e9}
        made = {name: f"a-{self._made}", "status": "ACTIVE", **times, **body}
        arn = f"{self._prefix}:{path[-1].removesuffix('s')}/{made[name]}"
        if path[-1] == "clusters":
            return made | {
                "arn": arn,
                "endpoint": "https://cluster.eks.amazonaws.com",
                "certificateAuthority": {"data": ""},
                "platformVersion": "eks.1",
                "resourcesVpcConfig": {**body["resourcesVpcConfig"], "clusterSecurityGroupId": "sg-1"},
                "kubernetesNetworkConfig": {
                    "ipFamily": "ipv4",
                    "serviceIpv4Cidr": "172.20.0.0/16",
                    **body.get("kubernetesNetworkConfig", {}),
                },
            }
        arns = {"accessEntryArn": arn, "addonArn": arn, "associationArn": arn}
        return {
            "clusterName": path[1],
            "type": "STANDARD",
            "username": "",
            "addonVersion": "v1",
            **arns,
            **made,
        }
