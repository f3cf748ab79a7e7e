# One machine: its identity, the role it logs in with, and what joins the two.

terraform {
  required_providers {
    vault = {
      source = "hashicorp/vault"
    }
  }
}

variable "name" { type = string }
variable "platforms" { type = list(string) }
variable "groups" { type = set(string) }
variable "auth_mount" { type = string }
variable "auth_accessor" { type = string }
variable "token_ttl" { type = number }
variable "token_max" { type = number }
variable "secret_id_ttl" { type = number }
variable "cidrs" { type = set(string) }

resource "vault_identity_entity" "machine" {
  name = "batchwarden-machine-${var.name}"
  metadata = {
    machine  = var.name
    platform = var.platforms[0]
  }
  policies = concat(
    ["batchwarden-machine"],
    [for g in sort(tolist(var.groups)) : "batchwarden-group-${lower(g)}"],
    [for p in slice(var.platforms, 1, length(var.platforms)) : "batchwarden-platform-${p}" if p != var.platforms[0]],
  )
}

resource "vault_approle_auth_backend_role" "machine" {
  backend               = var.auth_mount
  role_name             = var.name
  token_ttl             = var.token_ttl
  token_max_ttl         = var.token_max
  secret_id_ttl         = var.secret_id_ttl
  token_bound_cidrs     = var.cidrs
  secret_id_bound_cidrs = var.cidrs
}

resource "vault_identity_entity_alias" "machine" {
  name           = vault_approle_auth_backend_role.machine.role_id
  mount_accessor = var.auth_accessor
  canonical_id   = vault_identity_entity.machine.id
}

output "role_id" {
  value = vault_approle_auth_backend_role.machine.role_id
}
