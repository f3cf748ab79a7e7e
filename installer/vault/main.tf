# What "batchwarden admin init", "group add" and "machine add" set up, as Terraform.
# The policies are those that the program writes: "batchwarden admin init --print
# terraform" prints these files.

terraform {
  required_version = ">= 1.3"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 3.20"
    }
  }
}

resource "vault_mount" "batch" {
  path        = var.mount
  type        = "kv"
  options     = { version = "2" }
  description = "batchwarden: batch users and policies"
}

resource "vault_auth_backend" "approle" {
  type        = "approle"
  path        = var.auth_mount
  description = "batchwarden: what machines log in with"
}

# Of every machine: its own scope, its first platform's, its own identity.
resource "vault_policy" "machine" {
  name   = "batchwarden-machine"
  policy = <<-EOT
    path "${var.mount}/data/machines/{{identity.entity.metadata.machine}}/*" { capabilities = ["read"] }
    path "${var.mount}/metadata/machines/{{identity.entity.metadata.machine}}/*" { capabilities = ["read", "list"] }
    path "${var.mount}/data/platforms/{{identity.entity.metadata.platform}}/*" { capabilities = ["read"] }
    path "${var.mount}/metadata/platforms/{{identity.entity.metadata.platform}}/*" { capabilities = ["read", "list"] }
    path "identity/entity/id/{{identity.entity.id}}" { capabilities = ["read"] }
    path "auth/${var.auth_mount}/role/{{identity.entity.metadata.machine}}/secret-id/lookup" { capabilities = ["update"] }
  EOT
}

resource "vault_policy" "group" {
  for_each = var.groups
  name     = "batchwarden-group-${lower(each.value)}"
  policy   = <<-EOT
    path "${var.mount}/data/groups/${each.value}/*" { capabilities = ["read"] }
    path "${var.mount}/metadata/groups/${each.value}/*" { capabilities = ["read", "list"] }
  EOT
}

# For machines that have a platform beside their first.
resource "vault_policy" "platform" {
  for_each = toset(["unix", "windows", "zos"])
  name     = "batchwarden-platform-${each.value}"
  policy   = <<-EOT
    path "${var.mount}/data/platforms/${each.value}/*" { capabilities = ["read"] }
    path "${var.mount}/metadata/platforms/${each.value}/*" { capabilities = ["read", "list"] }
  EOT
}

# Of whoever runs "batchwarden admin". Who may write policies and entities may do
# everything: give it to few.
resource "vault_policy" "admin" {
  name   = "batchwarden-admin"
  policy = <<-EOT
    # the mount, AppRole, and the policies of machines
    path "sys/mounts" { capabilities = ["read"] }
    path "sys/mounts/${var.mount}" { capabilities = ["create", "update"] }
    path "sys/auth" { capabilities = ["read"] }
    path "sys/auth/${var.auth_mount}" { capabilities = ["create", "update", "sudo"] }
    path "sys/policies/acl" { capabilities = ["list"] }
    path "sys/policies/acl/batchwarden-*" { capabilities = ["create", "read", "update", "delete"] }
    path "sys/policies/acl/batchwarden-admin" { capabilities = ["read"] }

    # machines: their roles, secret_ids and identities
    path "auth/${var.auth_mount}/role" { capabilities = ["list"] }
    path "auth/${var.auth_mount}/role/*" { capabilities = ["create", "read", "update", "delete", "list"] }
    path "identity/entity/name" { capabilities = ["list"] }
    path "identity/entity/name/batchwarden-machine-*" { capabilities = ["create", "read", "update", "delete"] }
    path "identity/entity-alias" { capabilities = ["create", "update"] }
    path "identity/entity-alias/id/*" { capabilities = ["read", "delete"] }

    # documents
    path "${var.mount}/config" { capabilities = ["read"] }
    path "${var.mount}/data/*" { capabilities = ["create", "read", "update", "delete"] }
    path "${var.mount}/metadata/*" { capabilities = ["create", "read", "update", "delete", "list"] }
    path "${var.mount}/destroy/*" { capabilities = ["create", "update"] }
  EOT
}

module "machine" {
  source   = "./machine"
  for_each = var.machines

  name          = each.key
  platforms     = each.value.platforms
  groups        = each.value.groups
  auth_mount    = vault_auth_backend.approle.path
  auth_accessor = vault_auth_backend.approle.accessor
  token_ttl     = each.value.token_ttl
  token_max     = each.value.token_max
  secret_id_ttl = each.value.secret_id_ttl
  cidrs         = each.value.cidrs

  depends_on = [vault_policy.machine, vault_policy.group, vault_policy.platform]
}

# No secret: what a machine logs in with, beside the secret_id that
# "batchwarden admin machine rotate NAME" issues.
output "role_ids" {
  value = { for name, machine in module.machine : name => machine.role_id }
}
