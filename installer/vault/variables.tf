variable "mount" {
  description = "where the documents lie: a key-value store, version 2"
  type        = string
  default     = "batch"
}

variable "auth_mount" {
  description = "where AppRole lies"
  type        = string
  default     = "approle"
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
