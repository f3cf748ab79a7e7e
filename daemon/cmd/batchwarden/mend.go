package main

import (
	"cmp"
	"strings"

	"batchwarden/ipc/wire"
)

// nextByFinding says what somebody can do about a problem that status shows.
var nextByFinding = map[string]string{
	"state.starting":         "Wait for the first sync; if it fails, the reason is in the first line.",
	"sync.pending":           "Wait for the first sync to end, or begin one: batchwarden sync.",
	"sync.worker":            "The service's log says why batchwarden-sync did not run or report; is it beside the launcher?",
	"vault.unreachable":      "Is Vault running, and the network between? vault.address in the configuration is what is asked; then batchwarden sync.",
	"vault.tls":              "vault.ca_file must have the authority that signed Vault's certificate, and the clocks must be right.",
	"vault.sealed":           "Somebody has to unseal Vault; nothing is to be done here.",
	"vault.login_refused":    "Give this machine a new secret_id (or certificate): batchwarden admin machine; then batchwarden sync.",
	"vault.wrapped_used":     "Somebody else may have the secret_id: revoke it in Vault, and give this machine a new one.",
	"vault.forbidden":        "Vault's policy must let this machine read its own scope: batchwarden admin init writes it.",
	"vault.missing":          "vault.mount in the configuration names a mount that Vault does not have.",
	"vault.limited":          "Vault limits how often it is asked; it is asked again later.",
	"vault.error":            "Vault's own log has more; it is asked again later.",
	"vault.answer":           "Is something between this machine and Vault that answers in its place? It is asked again later.",
	"vault.identity":         "The login is another machine's: machine in the configuration must be the metadata of its entity in Vault.",
	"vault.setup":            "Mend what is named in the configuration or its files; batchwarden config check helps.",
	"document.refused":       "Mend the document in Vault, then batchwarden sync; the last good one stays in force.",
	"policy.missing":         "Put the realm's policy into Vault: batchwarden admin policy; then batchwarden sync.",
	"policy.refused":         "Mend the policy in Vault (batchwarden policy lint finds its faults), then batchwarden sync.",
	"audit.room_low":         "Make room on the audit file's disk, soon: when it is full, nothing is started or handed out.",
	"audit.copy_lost":        "Nothing, once; if the number grows, the system's journal is too slow or not there.",
	"memory.degraded":        "Secrets may reach the swap space: raise the service's memlock limit, or give it a newer kernel.",
	"memory.dumpable":        "Start the service again; if it stays so, its unit lacks its sandbox.",
	"local_vault.damaged":    "Look at the files set aside beside the local vault; batchwarden sync fetches what was lost.",
	"local_vault.foreign":    "Nothing, if this machine was cloned or renamed; everything is read from Vault anew.",
	"local_vault.went_back":  "Was an old backup put back? Once Vault answers, batchwarden sync brings it up to date.",
	"local_vault.refused":    "The service's log has more; then batchwarden sync.",
	"clock.behind":           "Set this machine's clock right.",
	"config.ignored":         "Mend that line of the configuration; batchwarden config check shows all of them.",
	"config.refused":         "Mend it; batchwarden config check shows all faults. A file that changes is read again by itself.",
	"config.restart_needed":  "When it suits, systemctl restart batchwarden-launcher batchwardend; jobs go on.",
	"config.not_watched":     "After a change of the configuration: batchwarden reload.",
	"config.name":            "Make the account or group on this host, or correct its name in the configuration.",
	"launcher.problem":       "Mend what is named; limits.yaml is read again when it has changed.",
	wire.MachineSuspended:    "batchwarden resume starts jobs again.",
	wire.LauncherUnavailable: "Start batchwarden-launcher, or see in its log why it ended.",
	"realm.none":             "Name the controllers of this machine under realms in the configuration, and their agents under clients.",
	wire.PolicyInvalid:       "Put a policy for one of the realms into Vault: batchwarden admin policy; then batchwarden sync.",
	wire.PolicyStale:         "Mend what keeps Vault from answering, then batchwarden sync.",
}

// nextAfterFinding is never empty: a problem that nothing can be done about is none.
func nextAfterFinding(code string) string {
	next := cmp.Or(nextByFinding[code], nextByCode[code])
	if next == "" && strings.HasPrefix(code, "vault.") {
		next = "Vault's own log has more; it is asked again later."
	}
	return cmp.Or(next, "The service's log has more.")
}
