package wire

import "time"

// NotChecked is the outcome of a Verified beside Accepted and Rejected.
const NotChecked = "not_checked"

// VerifyUnknown is the code of an attempt of which nobody knows what came of it.
const VerifyUnknown = "verify.unknown"

// Verified is the answer of POST /v1/batch-users/{name}/verify: whether the
// password is that of the account on this host. Code and Reason say why not,
// or that it was checked before: each version is, once.
type Verified struct {
	Outcome  string    `json:"outcome"` // Accepted, Rejected, NotChecked
	Version  int64     `json:"version"` // of the password
	Username string    `json:"username"`
	Checked  time.Time `json:"checked,omitzero"` // when it was tried
	Code     string    `json:"code,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}
