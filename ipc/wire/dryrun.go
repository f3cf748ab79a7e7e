package wire

// Check is one step of a launch, as a dry run went through it.
type Check struct {
	Step   string `json:"step"`
	OK     bool   `json:"ok"`
	Code   string `json:"code,omitempty"`   // why not
	Detail string `json:"detail,omitempty"` // for people; of a step that is passed only where it is explained
	Unseen bool   `json:"unseen,omitempty"` // it could not be looked at: OK as far as anybody knows
}

// DryRun is the answer of POST /v1/jobs?dry_run=1: the steps of a launch in
// their order, all of them, and what would have come of it.
type DryRun struct {
	Start      bool      `json:"start"`          // the job would be started
	Code       string    `json:"code,omitempty"` // of the first step that would have refused it
	Checks     []Check   `json:"checks"`
	DecisionID string    `json:"decision_id,omitempty"`
	Explained  *Explains `json:"explained,omitempty"` // with explain=1
}

// Explains is what a dry run rests on, for those who may have it explained.
// What could not be found out is absent.
type Explains struct {
	Peer      Peer   `json:"peer"`               // who asked
	Operator  bool   `json:"operator"`           // he is one
	Client    string `json:"client,omitempty"`   // the client entry that was judged
	Supposed  bool   `json:"supposed,omitempty"` // as if that client had asked, who did not
	Account   string `json:"account,omitempty"`  // of the operating system, that asked or was supposed to
	Entry     string `json:"entry,omitempty"`    // where the client entry is written: file:line
	Config    string `json:"config"`             // the service's main configuration file
	Machine   string `json:"machine"`            // what Vault calls this machine
	Model     string `json:"model,omitempty"`    // of the realm
	Agent     string `json:"agent,omitempty"`    // what the realm calls this machine
	RealmName string `json:"realm_name,omitempty"`

	BatchUser *BatchUser `json:"batch_user,omitempty"`
	Policy    *Policy    `json:"policy,omitempty"`
	Decision  *Decision  `json:"decision,omitempty"` // of the policy, with its trace
}
