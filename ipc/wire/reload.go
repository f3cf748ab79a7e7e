package wire

// Outcomes of a Reload.
const (
	ReloadChanged   = "changed"
	ReloadUnchanged = "unchanged"
	ReloadRefused   = "refused" // the configuration in force stays
)

// Codes of problems with the configuration's files, in the status.
const (
	ConfigFaulty        = "config.refused"        // they have faults; Path says where
	ConfigRestartNeeded = "config.restart_needed" // what they say is in force after a restart
	ConfigUnwatched     = "config.not_watched"    // changes are seen late, or when somebody says so
)

// Reload is the answer of POST /v1/reload. Places are those of the
// configuration, such as clients.opcon-lsam; what stands there is nowhere.
type Reload struct {
	Outcome       string        `json:"outcome"`
	Changed       []string      `json:"changed"`            // in force now
	RestartNeeded []string      `json:"restart_needed"`     // as it was, until a restart
	Faults        []ConfigFault `json:"faults,omitempty"`   // all there are; nothing was changed
	Warnings      []string      `json:"warnings,omitempty"` // what has no effect
	SHA256        string        `json:"sha256"`             // of what was read: "sha256sum FILES | sha256sum"
	InForce       string        `json:"in_force"`           // of what is in force
}

// ConfigFault is one thing that is wrong with a configuration.
type ConfigFault struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Place  string `json:"place,omitempty"`
	Text   string `json:"text"`
}
