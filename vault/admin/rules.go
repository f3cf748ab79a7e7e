package admin

import (
	"fmt"
	"strings"
)

// Names of policies. Vault knows no case in them and writes them small.
const (
	machinePolicy  = "batchwarden-machine"
	operatorPolicy = "batchwarden-admin"
	groupPrefix    = "batchwarden-group-"
	platformPrefix = "batchwarden-platform-"
)

func groupPolicy(group string) string       { return groupPrefix + strings.ToLower(group) }
func platformPolicy(platform string) string { return platformPrefix + platform }

// rulesOf is text with the mounts filled in, which may be a machine's or Terraform's ${…}.
func rulesOf(text, mount, authMount string) string {
	return strings.NewReplacer("<mount>", mount, "<auth>", authMount).Replace(text)
}

// machineRules let a machine read its own scope, its first platform's and its own
// identity, and how long its secret_id is good; {{…}} is filled in by Vault for the token that asks.
const machineRules = `path "<mount>/data/machines/{{identity.entity.metadata.machine}}/*" { capabilities = ["read"] }
path "<mount>/metadata/machines/{{identity.entity.metadata.machine}}/*" { capabilities = ["read", "list"] }
path "<mount>/data/platforms/{{identity.entity.metadata.platform}}/*" { capabilities = ["read"] }
path "<mount>/metadata/platforms/{{identity.entity.metadata.platform}}/*" { capabilities = ["read", "list"] }
path "identity/entity/id/{{identity.entity.id}}" { capabilities = ["read"] }
path "auth/<auth>/role/{{identity.entity.metadata.machine}}/secret-id/lookup" { capabilities = ["update"] }
`

// scopeRules let a machine read one group, or a platform that is not its first.
func scopeRules(scope string) string {
	return fmt.Sprintf(`path "<mount>/data/%[1]s/*" { capabilities = ["read"] }
path "<mount>/metadata/%[1]s/*" { capabilities = ["read", "list"] }
`, scope)
}

// operatorRules are what "batchwarden admin" itself needs.
const operatorRules = `# the mount, AppRole, and the policies of machines
path "sys/mounts" { capabilities = ["read"] }
path "sys/mounts/<mount>" { capabilities = ["create", "update"] }
path "sys/auth" { capabilities = ["read"] }
path "sys/auth/<auth>" { capabilities = ["create", "update", "sudo"] }
path "sys/policies/acl" { capabilities = ["list"] }
path "sys/policies/acl/batchwarden-*" { capabilities = ["create", "read", "update", "delete"] }
path "sys/policies/acl/batchwarden-admin" { capabilities = ["read"] }

# machines: their roles, secret_ids and identities
path "auth/<auth>/role" { capabilities = ["list"] }
path "auth/<auth>/role/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "identity/entity/name" { capabilities = ["list"] }
path "identity/entity/name/batchwarden-machine-*" { capabilities = ["create", "read", "update", "delete"] }
path "identity/entity-alias" { capabilities = ["create", "update"] }
path "identity/entity-alias/id/*" { capabilities = ["read", "delete"] }

# documents
path "<mount>/config" { capabilities = ["read"] }
path "<mount>/data/*" { capabilities = ["create", "read", "update", "delete"] }
path "<mount>/metadata/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "<mount>/destroy/*" { capabilities = ["create", "update"] }
`
