package admin

import (
	"fmt"
	"strings"
)

// File is one file of text.
type File struct{ Name, Text string }

// Terraform returns the files that set up what Init and AddMachine do, as they
// lie in installer/vault. The mounts are the defaults of their variables.
func Terraform(mount, authMount string) []File {
	variables := strings.NewReplacer("@MOUNT@", mount, "@AUTH@", authMount).Replace(terraformVariables)
	main := strings.NewReplacer(
		"@MACHINE@", heredoc(machineRules),
		"@GROUP@", heredoc(scopeRules("groups/${each.value}")),
		"@PLATFORM@", heredoc(scopeRules("platforms/${each.value}")),
		"@OPERATOR@", heredoc(operatorRules),
	).Replace(terraformMain)
	return []File{{"main.tf", main}, {"variables.tf", variables}, {"machine/main.tf", terraformMachine}}
}

// heredoc is the text of a policy inside a resource, with the mounts as variables.
func heredoc(text string) string {
	text = rulesOf(text, "${var.mount}", "${var.auth_mount}")
	var b strings.Builder
	b.WriteString("<<-EOT\n")
	for line := range strings.Lines(text) {
		if line != "\n" {
			line = "    " + line
		}
		b.WriteString(line)
	}
	fmt.Fprint(&b, "  EOT")
	return b.String()
}

const terraformMain = `# What "batchwarden admin init", "group add" and "machine add" set up, as Terraform.
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
  policy = @MACHINE@
}

resource "vault_policy" "group" {
  for_each = var.groups
  name     = "batchwarden-group-${lower(each.value)}"
  policy   = @GROUP@
}

# For machines that have a platform beside their first.
resource "vault_policy" "platform" {
  for_each = toset(["unix", "windows", "zos"])
  name     = "batchwarden-platform-${each.value}"
  policy   = @PLATFORM@
}

# Of whoever runs "batchwarden admin". Who may write policies and entities may do
# everything: give it to few.
resource "vault_policy" "admin" {
  name   = "batchwarden-admin"
  policy = @OPERATOR@
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
`

const terraformVariables = `variable "mount" {
  description = "where the documents lie: a key-value store, version 2"
  type        = string
  default     = "@MOUNT@"
}

variable "auth_mount" {
  description = "where AppRole lies"
  type        = string
  default     = "@AUTH@"
}

variable "groups" {
  description = "groups of machines"
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for g in var.groups : can(regex("^[A-Za-z0-9._-]{1,61}$", g)) && g != "." && g != ".."])
    error_message = "A group's name is 1 to 61 of A-Z a-z 0-9 . _ - and neither . nor ..."
  }

  validation {
    condition     = length(distinct([for g in var.groups : lower(g)])) == length(var.groups)
    error_message = "Two groups differ only in case, which Vault's policies do not know."
  }
}

variable "machines" {
  description = "machines by name; times in seconds"
  type = map(object({
    platforms     = optional(list(string), ["unix"])
    groups        = optional(set(string), [])
    token_ttl     = optional(number, 3600)
    token_max     = optional(number, 864000)
    secret_id_ttl = optional(number, 0)
    cidrs         = optional(set(string), [])
  }))
  default = {}

  validation {
    condition     = alltrue([for n in keys(var.machines) : can(regex("^[A-Za-z0-9_]([A-Za-z0-9._-]{0,59}[A-Za-z0-9_])?$", n))])
    error_message = "A machine's name is 1 to 61 of A-Z a-z 0-9 . _ - and begins and ends with a letter, a digit or _."
  }

  validation {
    condition     = length(distinct([for n in keys(var.machines) : lower(n)])) == length(var.machines)
    error_message = "Two machines differ only in case, which Vault's roles do not know."
  }

  validation {
    condition     = alltrue([for m in values(var.machines) : length(m.platforms) > 0 && alltrue([for p in m.platforms : contains(["unix", "windows", "zos"], p)])])
    error_message = "A machine has one or more of the platforms unix, windows, zos."
  }
}
`

const terraformMachine = `# One machine: its identity, the role it logs in with, and what joins the two.

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
`
